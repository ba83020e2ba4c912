"""Give endpoints what they work with: settings, services, a transaction, and who is asking."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Protocol

from anyio import CapacityLimiter
from fastapi import Depends, Path
from sqlalchemy.orm import Session
from starlette.requests import HTTPConnection

from genonaut.api import auth
from genonaut.api.auth import Credentials
from genonaut.api.config import Settings
from genonaut.api.files import Shelf
from genonaut.api.live import Live
from genonaut.api.options import OptionsCache
from genonaut.clients.bus import EventPublisher
from genonaut.clients.comfyui import BackendOptions
from genonaut.clients.storage import Storage
from genonaut.core.events import Event
from genonaut.db.session import Database
from genonaut.domain.users import Principal, Role


class JobDispatcher(Protocol):
    """Send committed jobs to the queue, from a thread of its own."""

    def start(self) -> None:
        """Begin."""
        ...

    def stop(self) -> None:
        """Send what is waiting and end."""
        ...

    def on_events(self, events: list[Event]) -> None:
        """Take what was committed; never blocks."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """What one API process works with."""

    settings: Settings
    database: Database
    publisher: EventPublisher
    dispatcher: JobDispatcher
    storage: Storage
    options: OptionsCache
    live: Live
    health_threads: CapacityLimiter
    picture_threads: CapacityLimiter

    @property
    def shelf(self) -> Shelf:
        """Where the pictures are that are sent."""
        return Shelf(self.storage, self.picture_threads)


async def get_services(connection: HTTPConnection) -> Services:
    """Give the process's services."""
    services: Services = connection.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


@dataclass(frozen=True, slots=True)
class Caller:
    """A request that shows a login; the login is checked in the transaction that serves it."""

    services: Services
    credentials: Credentials

    @contextmanager
    def transaction(
        self, *, in_turn: bool = False, role: Role = Role.USER
    ) -> Iterator[tuple[Session, Principal]]:
        """Begin the request's one transaction, whose first statement checks the login.

        With ``in_turn`` that statement also waits for the user's other requests of the kind.
        ``role`` is the least that may do what follows.

        It is committed inside the endpoint, so a failed commit is never answered as a success;
        and login, work and commit take one thread of the pool once, not four times.

        Raises:
            UnauthorizedError: the login is not valid.
            ForbiddenError: its role is a lesser one.
        """
        with self.services.database.transaction() as session:
            who = self.credentials.authenticate(session, in_turn=in_turn)
            who.require(role)
            yield session, who

    def options(self) -> BackendOptions | None:
        """Give what ComfyUI offers, outside a transaction: it may be waited for for a moment.

        Raises: UnauthorizedError: nothing is known, and nobody waits who is not logged in.
        """
        known = self.services.options.get(wait_s=0)
        if known is not None:
            return known
        with self.transaction():
            pass
        return self.services.options.get()


async def get_caller(connection: HTTPConnection, services: ServicesDep) -> Caller:
    """Read the login; a request without one ends here."""
    return Caller(services, auth.of_request(connection, services.settings))


CallerDep = Annotated[Caller, Depends(get_caller)]

MAX_ID = 2**63 - 1
Id = Annotated[int, Path(ge=1, le=MAX_ID)]
