"""Hold the tasks; ``run_comfy_job`` makes pictures."""

from genonaut.worker.tasks.generation import run_comfy_job

__all__ = ["run_comfy_job"]
