"""Give Prometheus what it scrapes: read from PostgreSQL at that moment, by whichever process."""

from contextlib import suppress
from typing import Annotated

import structlog
from anyio import move_on_after, to_thread
from fastapi import APIRouter, Depends
from starlette.requests import HTTPConnection
from starlette.responses import Response

import genonaut
from genonaut.api import auth, errors, exposition
from genonaut.api.answers import Documented, problems
from genonaut.api.auth import Credentials
from genonaut.api.deps import Services, ServicesDep
from genonaut.domain import metrics
from genonaut.domain.metrics import Reading
from genonaut.domain.users import Role
from genonaut.worker import discovery
from genonaut.worker.queues import GENERATION, QUEUES

log = structlog.get_logger(__name__)

router = APIRouter(tags=["operations"])

# A scraper waits ten seconds; a statement of ours may take four.
_TIME_LIMIT_S = 4.0
_DOCUMENTED: Documented = {
    200: {
        "description": "Metrics in Prometheus's text format.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
}


async def get_reader(connection: HTTPConnection, services: ServicesDep) -> Credentials | None:
    """Let a program on this machine in without a login; read the login of any other."""
    return None if auth.is_local(connection) else auth.of_request(connection, services.settings)


@router.head("/metrics", include_in_schema=False)
@router.get(
    "/metrics", operation_id="readMetrics", responses={**_DOCUMENTED, **problems(401, 403, 503)}
)
async def read_metrics(
    services: ServicesDep, login: Annotated[Credentials | None, Depends(get_reader)]
) -> Response:
    """Give queues, work, processes and schedules as metrics: to this machine, and to auditors.

    While the database does not answer, `genonaut_up` is 0 and little else is there: that the API
    lives is news too. Who needs a login gets a 503 then, since no login can be checked.
    """
    channels = [name for name, each in discovery.channels().items() if each.has_addresses]
    reading = None
    with suppress(*errors.DATABASE_AWAY), move_on_after(_TIME_LIMIT_S):
        reading = await to_thread.run_sync(
            _read,
            services,
            login,
            channels,
            limiter=services.health_threads,
            abandon_on_cancel=True,
        )
    if reading is None:
        log.warning("metrics_unread")
        if login is not None:
            return errors.database_away()
    page = exposition.write(reading, version=genonaut.__version__, channels=channels)
    return Response(page, headers={"Content-Type": exposition.MEDIA_TYPE})


def _read(services: Services, login: Credentials | None, channels: list[str]) -> Reading:
    with services.database.transaction() as session:
        if login is not None:
            login.authenticate(session).require(Role.AUDITOR)
        return metrics.read(session, QUEUES, job_queue=GENERATION, channels=channels)
