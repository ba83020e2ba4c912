"""Say what went wrong, once, for API, tasks and command line alike."""


class GenonautError(Exception):
    """Be the root: ``code`` is stable and machine-readable, the message is for people."""

    code = "internal_error"
    http_status = 500

    def __init__(
        self, message: str = "", *, field: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message or self.__doc__ or self.code)
        self.field = field
        if code is not None:
            self.code = code


class NotFoundError(GenonautError):
    """There is no such thing, or it is not yours."""

    code = "not_found"
    http_status = 404


class ConflictError(GenonautError):
    """The present state forbids it."""

    code = "conflict"
    http_status = 409


class LeaseLostError(ConflictError):
    """Another worker holds this row now, or it has ended; nothing was written."""

    code = "lease_lost"


class InvalidInputError(GenonautError):
    """A value is wrong; ``field`` names it."""

    code = "invalid_input"
    http_status = 422


class UnauthorizedError(GenonautError):
    """No valid login."""

    code = "unauthorized"
    http_status = 401


class ForbiddenError(GenonautError):
    """The login's role does not allow it."""

    code = "forbidden"
    http_status = 403


class RateLimitedError(GenonautError):
    """Too much at once; try again after ``retry_after_s``."""

    code = "rate_limited"
    http_status = 429

    def __init__(
        self, message: str, *, retry_after_s: float, limit: int, remaining: int = 0
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.limit = limit
        self.remaining = remaining


class RetryableError(GenonautError):
    """Waiting may cure it."""

    code = "unavailable"
    http_status = 503


class BackendUnavailableError(RetryableError):
    """No ComfyUI server answers."""

    code = "backend_unavailable"


class SubmissionUnclearError(RetryableError):
    """ComfyUI may or may not have the prompt: look it up before posting again."""

    code = "submission_unclear"

    def __init__(self, message: str = "", *, was_answered: bool = False) -> None:
        super().__init__(message)
        self.was_answered = was_answered  # with an error: the server is there, and refuses


class ArtifactMissingError(RetryableError):
    """ComfyUI no longer has a picture it listed; a new attempt draws it anew."""

    code = "artifact_missing"


class ArtifactTooLargeError(GenonautError):
    """A picture is larger than we store."""

    code = "artifact_too_large"


class StorageFullError(RetryableError):
    """The disk has no room."""

    code = "storage_full"


class StoredFileError(RetryableError):
    """The store does not give this file, and may give others."""

    code = "file_unreadable"


class UnreadableImageError(GenonautError):
    """The bytes are not a picture we can decode."""

    code = "unreadable_image"
    http_status = 422


class UnsupportedImageError(UnreadableImageError):
    """The bytes are of no picture format that we know."""

    code = "unsupported_image"


class ImageTooLargeError(UnreadableImageError):
    """The picture has more pixels or bytes, or needs more memory, than we take."""

    code = "image_too_large"


class ImageTimeoutError(UnreadableImageError):
    """Decoding the picture took too long, and was ended."""

    code = "image_timed_out"


class DecoderCrashError(UnreadableImageError):
    """The decoder died of the picture."""

    code = "decoder_crashed"


class WorkflowRejectedError(GenonautError):
    """ComfyUI refuses the graph; trying again would not help."""

    code = "invalid_workflow"
    http_status = 422


class ExecutionFailedError(GenonautError):
    """A node failed while the graph ran."""

    code = "execution_failed"


class DeliveryRefusedError(GenonautError):
    """The receiver refuses the message for good; ``is_gone``: and any other."""

    code = "refused"

    def __init__(
        self, message: str = "", *, code: str | None = None, is_gone: bool = False
    ) -> None:
        super().__init__(message, code=code)
        self.is_gone = is_gone


class DeliveryFailedError(RetryableError):
    """The receiver did not take the message this time; it may say when to try again."""

    code = "not_taken"

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class ChannelAwayError(RetryableError):
    """What carries every message of a channel does not work now, whoever the receiver is."""

    code = "channel_unavailable"
