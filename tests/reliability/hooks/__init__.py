"""Faults inside a worker, loaded by ``celery worker --include`` in tests only."""
