"""Hold what one worker process works with."""

from dataclasses import dataclass, field
from functools import lru_cache

from genonaut.api.config import Settings, get_settings
from genonaut.clients.bus import EventPublisher
from genonaut.clients.storage import Storage, open_storage
from genonaut.db.session import Database
from genonaut.domain import orphans
from genonaut.worker.held import guard_patiently
from genonaut.worker.rendering import Renderer


@dataclass(frozen=True, slots=True)
class Services:
    """The outside world of a worker process; events of its transactions go to the bus."""

    settings: Settings
    database: Database
    events: EventPublisher
    storage: Storage
    renderer: Renderer = field(default_factory=Renderer)

    @classmethod
    def connect(cls, settings: Settings) -> "Services":
        """Make the clients; nothing is contacted yet."""
        database = Database.connect(settings.database_url, pool_size=3)
        events = EventPublisher(settings.redis_url, settings.redis_ns)
        database.sinks.append(events.publish)
        guard = guard_patiently(orphans.storing(database))
        storage = open_storage(settings, guard=guard)
        return cls(settings, database, events, storage)

    def after_fork(self) -> None:
        """Forget connections inherited from the parent, without closing the parent's."""
        self.database.after_fork()
        self.events.after_fork()
        self.renderer.after_fork()


@lru_cache(maxsize=1)
def get_services() -> Services:
    """Give this process's services."""
    return Services.connect(get_settings())
