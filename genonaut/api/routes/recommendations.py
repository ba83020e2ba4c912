"""Show a user what they might like, hear what they do with it, and let operators look after it."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from genonaut.api import answers_recommendations as answers
from genonaut.api import pagination, repeats
from genonaut.api.answers import CHANGING, POSTING, READING, problems
from genonaut.api.deps import CallerDep, Id
from genonaut.api.pagination import CursorParam, LimitParam
from genonaut.api.repeats import KeyHeader
from genonaut.api.requests_recommendations import InteractionRequest
from genonaut.api.routes.content import shown
from genonaut.domain import interactions, recommendation_lists, users
from genonaut.domain import recommendation_generations as generations
from genonaut.domain.idempotency import Answer
from genonaut.domain.interactions import Act
from genonaut.domain.recommendation_lists import Place
from genonaut.domain.users import Role

router = APIRouter(tags=["recommendations"])


@router.get(
    "/recommendations",
    operation_id="listRecommendations",
    responses={200: {"model": answers.RecommendationPage}, **READING},
)
def list_recommendations(
    request: Request, caller: CallerDep, limit: LimitParam = 20, cursor: CursorParam = None
) -> Response:
    """List what one might like next, best first, each with the reason.

    What is popular for a user of whom nothing is known yet. A list that was begun is read to its
    end even if newer ones were made meanwhile.
    """
    after = pagination.decode(cursor)
    with caller.services.database.looking() as session:
        login = caller.credentials.login()
        user_id, places = recommendation_lists.read_with(
            session, login, after=after, limit=limit + 1
        )
        recommendation_lists.mark_served(session, user_id, places[:limit])
    return pagination.page(
        request,
        places,
        limit,
        lambda place: _shown(place, user_id),
        cursor_of=lambda place: pagination.encode(place.mark),
    )


def _shown(place: Place, user_id: UUID) -> dict[str, Any]:
    return {
        "rank": place.rank,
        "score": round(place.score, 6),
        "reason": {
            "kind": place.reason,
            "text": place.words,
            "content_id": place.because_id,
        },
        "content": shown(place.item, place.images, user_id, place.opinion),
    }


@router.post(
    "/recommendations/{content_id}/dismiss",
    status_code=204,
    operation_id="dismissRecommendation",
    responses={**CHANGING, **problems(404)},
)
def dismiss(content_id: Id, caller: CallerDep) -> Response:
    """Never be recommended an item again."""
    with caller.transaction() as (session, who):
        interactions.record(session, who.user_id, content_id, Act.DISMISS)
    return Response(status_code=204)


@router.delete(
    "/recommendations/{content_id}/dismiss",
    status_code=204,
    operation_id="recallDismissal",
    responses={**CHANGING, **problems(404)},
)
def recall(content_id: Id, caller: CallerDep) -> Response:
    """Take a dismissal back."""
    with caller.transaction() as (session, who):
        interactions.record(session, who.user_id, content_id, Act.RECALL)
    return Response(status_code=204)


@router.post(
    "/content/{content_id}/interactions",
    operation_id="recordInteraction",
    responses={200: {"model": answers.Standing}, **POSTING, **problems(404)},
)
def record(
    content_id: Id, body: InteractionRequest, caller: CallerDep, key: KeyHeader = None
) -> Response:
    """Tell what one did with an item; answers how one stands to it now.

    A like, its taking back and a rating may be repeated. Views, downloads and shares are counted,
    those within a minute as one.
    """
    with caller.transaction() as (session, who):

        def make() -> tuple[Answer, dict[str, str]]:
            stands = interactions.record(
                session, who.user_id, content_id, Act(body.kind), rating=body.rating
            )
            return Answer(200, None, stands.public()), {}

        asked = {"content_id": content_id, **body.model_dump()}
        return repeats.once(session, who, key, act="content.interact", asked=asked, make=make)


@router.get(
    "/admin/recommendations/generations",
    operation_id="listRecommendationGenerations",
    responses={200: {"model": answers.GenerationPage}, **READING, **problems(403)},
)
def list_generations(
    request: Request, caller: CallerDep, limit: LimitParam = 50, cursor: CursorParam = None
) -> Response:
    """List the makings of everyone's lists, newest first, and how good each was."""
    before = pagination.decode(cursor)
    with caller.transaction(role=Role.AUDITOR) as (session, _):
        rows = generations.list_generations(session, before=before, limit=limit + 1)
    return pagination.page(request, rows, limit, generations.public)


@router.post(
    "/admin/recommendations/rollback",
    operation_id="rollBackRecommendations",
    responses={200: {"model": answers.Generation}, **CHANGING, **problems(403, 404, 409)},
)
def rollback(caller: CallerDep) -> Response:
    """Go back to the lists before the current ones."""
    with caller.transaction(role=Role.OPERATOR) as (session, who):
        now = generations.go_back(session)
        users.audit(session, who, "recommendations.rollback", f"generation:{now.id}")
        shown_now = generations.public(now)
    return JSONResponse(shown_now)
