"""Faults inside a beat: name this package in ``TASK_PACKAGES``, and each waits for its file."""
