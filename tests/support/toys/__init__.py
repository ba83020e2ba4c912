"""Tasks for tests with real workers: ``TASK_PACKAGES=tests.support.toys``."""
