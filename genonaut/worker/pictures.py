"""Take finished pictures from ComfyUI into storage."""

from collections.abc import Callable

import structlog
from sqlalchemy.orm import Session

from genonaut.clients.comfyui import ComfyClient
from genonaut.clients.storage import Storage
from genonaut.core import imaging
from genonaut.core.errors import ImageTooLargeError, RetryableError, UnreadableImageError
from genonaut.core.thumbnails import ThumbSpec
from genonaut.core.workflow import OutputImage
from genonaut.domain import orphans, thumbnails
from genonaut.domain.attempts import StoredImage
from genonaut.worker.outcomes import StorageWaitError
from genonaut.worker.rendering import Renderer

log = structlog.get_logger(__name__)

_DOWNLOADS = 2


def collect(
    client: ComfyClient,
    storage: Storage,
    renderer: Renderer,
    images: list[OutputImage],
    *,
    spec: ThumbSpec,
    check: Callable[[], None],
) -> list[StoredImage]:
    """Download, check, clean and store each picture and its thumbnails, in order.

    ``check`` is called before each picture; what it raises ends the collecting. Files are safe on
    disk before a row names them; collecting twice stores nothing twice.

    Raises:
        UnreadableImageError: a picture did not decode, however often it was fetched.
        StorageWaitError: there is no room now; ComfyUI keeps the pictures meanwhile.
        ArtifactMissingError: ComfyUI does not have a picture any more.
        BackendUnavailableError: it does not answer.
    """
    stored = []
    for image in images:
        check()
        data, info = _fetch(client, renderer, image)
        key = _put(storage, data, info.mime)
        made, error = _thumbnails(storage, renderer, data, spec)
        stored.append(
            StoredImage(
                storage_key=key,
                sha256=key.rpartition("/")[2].partition(".")[0],
                mime=info.mime,
                width=info.width,
                height=info.height,
                bytes=len(data),
                thumbnails=made,
                thumb_spec=None if error else spec.hash,
                thumb_error=error,
            )
        )
    return stored


def kept(session: Session, storage: Storage, images: list[StoredImage]) -> list[StoredImage]:
    """Give collected pictures, their files kept until the transaction that names them ends.

    Raises: StorageWaitError: one has been removed meanwhile; collect it again.
    """
    try:
        orphans.keep(session, storage, [image.storage_key for image in images])
    except RetryableError as error:
        raise StorageWaitError(str(error)) from error
    return images


def _put(storage: Storage, data: bytes, mime: str) -> str:
    try:
        return storage.put(data, mime=mime)
    except RetryableError as error:
        raise StorageWaitError(str(error)) from error


def _fetch(
    client: ComfyClient, renderer: Renderer, image: OutputImage
) -> tuple[bytes, imaging.ImageInfo]:
    for attempt in range(1, _DOWNLOADS + 1):
        raw = client.download(image, max_bytes=imaging.MAX_BYTES)
        try:
            # The graph, and with it the prompt, travels in the file's metadata: drop it.
            return renderer.clean(raw)
        except ImageTooLargeError:
            raise
        except RetryableError as error:  # the picture is good, and waits at ComfyUI
            raise StorageWaitError(str(error)) from error
        except UnreadableImageError:
            if attempt == _DOWNLOADS:
                raise
            log.warning("picture_unreadable", filename=image.filename, bytes=len(raw))
    raise AssertionError("unreachable")


def _thumbnails(
    storage: Storage, renderer: Renderer, data: bytes, spec: ThumbSpec
) -> tuple[thumbnails.Entries, str | None]:
    # A picture without thumbnails is still a picture: it is listed with the reason.
    try:
        return thumbnails.store(data, spec, storage, renderer.render), None
    except UnreadableImageError as error:
        log.warning("thumbnails_failed", reason=str(error))
        return {}, str(error)
    except RetryableError as error:
        raise StorageWaitError(str(error)) from error
