"""Hold the schedules that come with the code, one module per feature."""

from genonaut.worker.defaults import schedule

__all__ = ["schedule"]
