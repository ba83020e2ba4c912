"""Put the API together: ``uvicorn genonaut.api.main:app``."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, FastAPI

import genonaut
from genonaut.api import auth, errors, openapi
from genonaut.api.config import Settings, get_settings
from genonaut.api.deps import JobDispatcher, Services
from genonaut.api.live import Live
from genonaut.api.middleware import BodyLimit, Envelope, quiet_server_logs
from genonaut.api.options import OptionsCache
from genonaut.api.publishing import BackgroundPublisher
from genonaut.api.routes import (
    content,
    deliveries,
    generation_jobs,
    generation_options,
    health,
    mail_links,
    metrics,
    notification_settings,
    notifications,
    operations,
    recommendations,
    runs,
    schedules,
    session,
    sockets,
    stats,
    tasks,
    thumbnails,
    users,
    webhooks,
)
from genonaut.api.web import pages
from genonaut.clients.bus import EventPublisher, EventSubscriber
from genonaut.clients.storage import open_storage
from genonaut.core.log import configure_logging
from genonaut.db.session import Database
from genonaut.worker import discovery
from genonaut.worker.dispatch import Dispatcher

# A request meets a frozen PostgreSQL twice: on the connection it has, and making another.
_CONNECT_TIMEOUT_S = 2
_ANSWER_TIMEOUT_S = 5.0


def create_app(
    settings: Settings | None = None,
    *,
    database: Database | None = None,
    dispatcher: JobDispatcher | None = None,
) -> FastAPI:
    """Make the application; nothing is contacted before it is started.

    A database or dispatcher that is given stays the caller's to close.
    """
    settings = settings or get_settings()
    own_database = database is None
    if database is None:
        database = Database.connect(
            settings.database_url,
            pool_size=settings.database_pool_size,
            connect_timeout_s=_CONNECT_TIMEOUT_S,
            answer_timeout_s=_ANSWER_TIMEOUT_S,
        )
    events = EventPublisher(settings.redis_url, settings.redis_ns)
    services = Services(
        settings=settings,
        database=database,
        publisher=events,
        dispatcher=dispatcher or Dispatcher(database, settings),
        storage=open_storage(settings),
        options=OptionsCache(settings),
        health_threads=CapacityLimiter(8),
        picture_threads=CapacityLimiter(32),
        live=Live(database, EventSubscriber(settings.redis_url, settings.redis_ns)),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with _running(services, own_database=own_database):
            yield

    app = FastAPI(
        title="Genonaut",
        version=genonaut.__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = services
    errors.install(app)
    openapi.install(app, auth.cookie_name(settings))
    app.add_middleware(BodyLimit, max_bytes=settings.api_max_body_kb * 1024)
    app.add_middleware(Envelope)
    resources = APIRouter(prefix="/api/v1")
    made = (generation_jobs, generation_options, content, recommendations, stats)
    own = (notifications, notification_settings, session)
    admin = (thumbnails, operations, tasks, runs, schedules, deliveries, users)
    for module in (*made, *own, *admin):
        resources.include_router(module.router)
    app.include_router(resources)
    for root in (health, metrics, webhooks, sockets, mail_links):
        app.include_router(root.router)
    pages.install(app)
    return app


@asynccontextmanager
async def _running(services: Services, *, own_database: bool) -> AsyncIterator[None]:
    quiet_server_logs()
    discovery.load()  # before the first request asks for it
    # As many requests work at once as there are connections; more would wait for one anyway.
    to_thread.current_default_thread_limiter().total_tokens = services.settings.database_pool_size
    publisher = BackgroundPublisher(services.publisher)
    sinks = [services.dispatcher.on_events, publisher.on_events]
    publisher.start()
    services.dispatcher.start()
    services.database.sinks.extend(sinks)
    services.options.get(wait_s=0)
    await services.live.start()
    try:
        yield
    finally:
        await services.live.stop()
        for sink in sinks:
            services.database.sinks.remove(sink)
        services.dispatcher.stop()
        publisher.stop()
        if own_database:
            services.database.close()


@lru_cache(maxsize=1)
def _process_app() -> FastAPI:
    settings = get_settings()
    configure_logging(settings.log_level, as_json=settings.log_json)
    return create_app(settings)


def __getattr__(name: str) -> Any:
    """Make ``app`` on first use, so that importing this module reads and contacts nothing."""
    if name == "app":
        return _process_app()
    raise AttributeError(name)
