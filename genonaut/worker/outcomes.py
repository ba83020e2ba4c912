"""Name the ways in which work on a job stops before its pictures are there."""

from genonaut.clients.comfyui import HistoryEntry
from genonaut.core.errors import ExecutionFailedError, RetryableError


class CancelRequestedError(Exception):
    """The owner asked for an end."""


class DrainError(Exception):
    """The worker is stopping; the job goes back."""


class PromptLostError(RetryableError):
    """ComfyUI does not know the prompt any more: it was restarted, or its queue was cleared."""

    code = "prompt_lost"


class TimedOutError(RetryableError):
    """The prompt executed longer than it may."""

    code = "timed_out"


class StorageWaitError(RetryableError):
    """The pictures are ready at ComfyUI but cannot be stored now."""

    code = "storage_unavailable"


def execution_failed(entry: HistoryEntry) -> ExecutionFailedError:
    """Say which node failed and why."""
    error = entry.error
    if error is None:
        return ExecutionFailedError("ComfyUI failed without saying why")
    code = "out_of_memory" if error.is_out_of_memory else "execution_failed"
    where = f"node {error.node_id} ({error.node_type})"
    return ExecutionFailedError(f"{where}: {error.exception_type}: {error.message}", code=code)
