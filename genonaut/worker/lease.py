"""Keep a claim alive while it is worked on."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from genonaut.core.errors import LeaseLostError, NotFoundError
from genonaut.db.session import Database

log = structlog.get_logger(__name__)

TRY_AGAIN_S = 1.0


class LeaseKeeper:
    """Call ``renew`` from a thread every ``every_s`` seconds until the block ends.

    A database that is away for a while is not a lost lease: the row decides, and the holder is
    told by its next write. A renewal that failed is tried again a second later. ``lost`` is set
    once the row says that somebody else has it.
    """

    def __init__(
        self, database: Database, row_id: int, renew: Callable[[Session], None], *, every_s: float
    ) -> None:
        self._database = database
        self._row_id = row_id
        self._renew = renew
        self._every_s = every_s
        self._lost = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"lease-{row_id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join(timeout=5)

    def check(self) -> None:
        """Stop the work if the claim is gone.

        Raises: LeaseLostError: another worker may hold the row already.
        """
        if self._lost.is_set():
            raise LeaseLostError(f"the lease on {self._row_id} is lost")

    def _run(self) -> None:
        wait_s = self._every_s
        while not self._ended.wait(wait_s):
            wait_s = self._every_s
            try:
                with self._database.transaction() as session:
                    self._renew(session)
            except (LeaseLostError, NotFoundError):
                if not self._ended.is_set():
                    log.warning("lease_lost", id=self._row_id)
                self._lost.set()
                return
            except SQLAlchemyError as error:
                log.warning("lease_not_renewed", id=self._row_id, reason=str(error)[:200])
                wait_s = min(TRY_AGAIN_S, self._every_s)
