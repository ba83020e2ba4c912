"""Give dev, test and demo a real PostgreSQL and Valkey where the machine has none.

Only where a URL is the built-in default and nothing listens there. Environments started side by
side share the servers; the last one out stops them.
"""

from pathlib import Path
from urllib.parse import urlsplit

from genonaut.api.config import Settings
from genonaut.local.errors import ServerError
from genonaut.local.locks import LockFile
from genonaut.local.processes import wait_until
from genonaut.local.servers.base import Server
from genonaut.local.servers.databases import ensure_database
from genonaut.local.servers.postgres import Postgres, program_path
from genonaut.local.servers.valkey import Valkey

__all__ = [
    "Lease",
    "Postgres",
    "ServerError",
    "Valkey",
    "ensure_database",
    "ensure_postgres",
    "ensure_valkey",
    "program_path",
]


class Lease:
    """Our share in an embedded server; the kernel gives it back if we are killed."""

    def __init__(self, server: Server, run_dir: Path) -> None:
        self.server = server
        self._run_dir = run_dir
        self._share: LockFile | None = None

    def take(self) -> bool:
        """Start or adopt the server and hold a share in it; False if another serves the port.

        Raises: LocalError: one line that says what is in the way.
        """
        with self._starting():
            if self.server.is_served_by_another():
                return False
            share = LockFile(self._run_dir / f"{self.server.name}.lease")
            try:
                share.lock(shared=True)
                self.server.start()
            except BaseException:
                share.close()
                raise
            self._share = share
        return True

    def revive(self) -> bool:
        """Start the server again if it has died; tell whether that was so."""
        if self._share is None or self.server.pid is not None:
            return False
        with self._starting():
            if self.server.pid is not None or self.server.is_served_by_another():
                return False
            self.server.start()
        return True

    def release(self) -> bool:
        """Give the share back; the last one out stops the server. Tell whether we did."""
        if self._share is None:
            return False
        share, self._share = self._share, None
        with self._starting():
            # A process that is just being forked may hold a copy for a moment.
            is_last = wait_until(share.try_lock, 0.2)
            if is_last:
                self.server.stop()
            share.close()
        return is_last

    def _starting(self) -> LockFile:
        """One start or stop at a time on this machine's data."""
        return LockFile(self._run_dir / "servers.lock")


def ensure_postgres(settings: Settings) -> Lease | None:
    """See to it that PostgreSQL listens where the default URL says.

    Returns: our share in the embedded server; None if the URL is the operator's, or another
    PostgreSQL listens there, which is then used as it is.
    Raises: LocalError: one line that says what is in the way.
    """
    if not settings.is_default("database_url"):
        return None
    port = urlsplit(settings.database_url).port or 5432
    setting = f"DATABASE_URL_{settings.app_env.upper()}"
    return _ensure(Postgres(settings.var_path / "postgres", port, setting=setting), settings)


def ensure_valkey(settings: Settings) -> Lease | None:
    """See to it that a Redis listens where the default URL says; as ``ensure_postgres``."""
    if not settings.is_default("redis_url"):
        return None
    port = urlsplit(settings.redis_url).port or 6379
    setting = f"REDIS_URL_{settings.app_env.upper()}"
    return _ensure(Valkey(settings.var_path / "valkey", port, setting=setting), settings)


def _ensure(server: Server, settings: Settings) -> Lease | None:
    lease = Lease(server, settings.var_path / "run")
    return lease if lease.take() else None
