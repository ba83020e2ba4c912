"""Show what was made, counted."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AfterValidator
from starlette.responses import JSONResponse, Response

from genonaut.api import answers
from genonaut.api.answers import READING
from genonaut.api.deps import CallerDep
from genonaut.api.requests import Day, storable
from genonaut.core.clock import utcnow
from genonaut.domain import stats

router = APIRouter(tags=["statistics"])

Name = Annotated[str, AfterValidator(storable)]


@router.get(
    "/stats", operation_id="readStats", responses={200: {"model": answers.Stats}, **READING}
)
def read(
    caller: CallerDep,
    since: Annotated[
        Day | None, Query(description="First day, UTC; left out: 30 days ago.")
    ] = None,
    creator: Annotated[Name | None, Query(max_length=50, description="Username.")] = None,
    model: Annotated[Name | None, Query(max_length=255, description="Checkpoint.")] = None,
) -> Response:
    """Count public items and one's own by creator, model and day; fresh to the hour."""
    first = since or utcnow().date() - stats.DEFAULT_SPAN
    with caller.transaction() as (session, who):
        counted = stats.read(session, who.user_id, since=first, creator=creator, model=model)
    return JSONResponse(counted)
