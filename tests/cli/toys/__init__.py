"""Tasks for the tests of the command line, found through ``TASK_PACKAGES``."""
