"""Run jobs and tasks with Celery."""
