"""Make everyone's recommendations, or those of who was just active."""

from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import func, select

from genonaut.api.config import Settings
from genonaut.core.errors import GenonautError, InvalidInputError
from genonaut.domain import recommendation_generations as generations
from genonaut.worker.task import TaskContext, TaskParams, TaskResult, task

if TYPE_CHECKING:
    from genonaut.domain.recommendation_signals import Ids, Signals
    from genonaut.domain.recommendations import Options, Recommender

BLOCK = 1000
"""Users per transaction."""


class Scope(StrEnum):
    """Whose lists are made."""

    ALL = "all"
    ACTIVE_SINCE = "active_since"
    USER = "user"


class Params(TaskParams):
    """What an operator may choose."""

    scope: Scope = Field(
        default=Scope.ALL,
        description="Whose lists: `all`, a new generation; `active_since` or `user`, within it.",
    )
    since: datetime | None = Field(
        default=None,
        description="For `active_since`: who did something after this; else since the last time.",
    )
    user_id: UUID | None = Field(default=None, description="For `user`: who.")
    force: bool = Field(
        default=False,
        description="Also when nothing has changed, or newer lists were gone back from or refused.",
    )
    accept_fall: bool = Field(
        default=False, description="Switch the lists in even if their score has fallen."
    )
    seed: int = Field(default=0, ge=0, le=2**31, description="The same gives the same lists.")


class Score(BaseModel):
    """How well the lists foretell what users took up last, beside what is popular."""

    users: int
    recall: float
    ndcg: float
    coverage: float
    popular_recall: float
    popular_ndcg: float
    popular_coverage: float
    error: float


class Result(TaskResult):
    """What was made."""

    skipped: str | None = None
    """Why nothing was."""
    generation: int | None = None
    users: int = 0
    items: int = 0
    interactions: int = 0
    rows: int = 0
    switched: bool = False
    evaluation: Score | None = None


class At(BaseModel):
    """Where a run is."""

    as_of: datetime
    evaluation: Score | None = None
    generation: int | None = None
    last_user: UUID | None = None
    users: int = 0
    rows: int = 0
    items: int = 0
    interactions: int = 0
    is_written: bool = False

    def result(self, scope: Scope) -> Result:
        """Give what has been made up to here."""
        return Result(
            generation=self.generation,
            users=self.users,
            items=self.items,
            interactions=self.interactions,
            rows=self.rows,
            switched=self.is_written and scope is Scope.ALL,
            evaluation=self.evaluation,
        )


class QualityFellError(GenonautError):
    """The new lists foretell less than those that are read now, which stay."""

    code = "quality_fell"


@task(
    "recommendations.refresh",
    title="Refresh recommendations",
    queue="maintenance",
    soft_limit_s=2 * 3600,
    dry_run=True,
)
def refresh(ctx: TaskContext, params: Params) -> Result:
    """Make everyone's list of what they might like next, in a new generation.

    Readers see the old lists until all new ones are written, then the new ones at once; the last
    two generations are kept, and `genonaut recommendations rollback` goes back; from then on lists
    are made only with `force`. Skipped when nothing has changed. Before anything is written, the
    newest item of each user is held back and looked for in lists made without it: if that score has
    fallen below the current lists' by more than RECOMMEND_MAX_FALL, and not by chance, the run
    fails as `quality_fell` and the old lists stay. A dry run tells the counts and the score.

    `active_since` and `user` learn anew from everything and replace single lists of the current
    generation; the first not while what was learned last is refused. A killed run goes on with the
    block of users it was at, or begins anew if the settings have changed. Safe to run again at any
    time; the same data and seed give the same lists.
    """
    # Half a second and 40 MB, which only this needs.
    from genonaut.domain import recommendation_signals as signals
    from genonaut.domain import recommendations as model

    if params.scope is Scope.USER and params.user_id is None:
        raise InvalidInputError("params.user_id: say whose list", field="params.user_id")
    options = _options(ctx.settings, params.seed)
    weights = signals.Weights.of(ctx.settings)
    how = {"algorithm": model.ALGORITHM, "options": repr(options), "weights": repr(weights)}
    at = ctx.resume(At)
    with ctx.transaction() as session:
        if at and not _goes_on(session, params, at, how):
            at = None
        current = generations.current(session)
        found = {}
        if params.scope is Scope.ALL:
            found = generations.fingerprint(session, seed=params.seed, **how)
        now = session.scalars(select(func.now())).one()
        if at is None:
            at = At(as_of=now)
            same = current is not None and current.fingerprint == found
            if params.scope is Scope.ALL and same and not (params.force or ctx.dry_run):
                return Result(skipped="nothing has changed since the lists were made")
            if (reason := _stays(session, params)) and not ctx.dry_run:
                return Result(skipped=reason)
        named = _named(session, params, current, at.as_of)
    if current is None and params.scope is not Scope.ALL:
        return Result(skipped="there are no lists yet: make everyone's first")
    if named is not None and not named and not ctx.dry_run:
        return Result(skipped="nobody was active")

    if at.is_written:  # and only the removal of old lists was interrupted
        _prune(ctx)
        return at.result(params.scope)

    ctx.progress(0, message="reading interactions")
    # Everyone's lists are of one moment, in however many attempts they are made.
    as_of = at.as_of if params.scope is Scope.ALL else now
    data = signals.read(ctx.transaction, as_of=as_of, weights=weights, seed=params.seed)
    at.items, at.interactions = len(data.items), len(data.feedback.user)
    chosen = _chosen(data, named)
    if params.scope is Scope.ALL and at.generation is None:
        ctx.progress(0, total=len(chosen), message="evaluating")
        found_score = model.evaluate(data.feedback, data.catalogue, options)
        at.evaluation = Score.model_validate(asdict(found_score))
        ctx.log.info("evaluated", **asdict(found_score))
    if ctx.dry_run:
        at.users = len(chosen)
        return at.result(params.scope)
    if at.generation is None:
        at = _begin(ctx, params, at, current, {"fingerprint": found, "algorithm": model.ALGORITHM})
    ctx.progress(at.users, total=len(chosen), message="learning")
    learned = model.Recommender(data.feedback, data.catalogue, options)
    at = _write(ctx, params, at, data, learned, chosen)
    _prune(ctx)
    return at.result(params.scope)


def _options(settings: Settings, seed: int) -> "Options":
    from genonaut.core import collaborative
    from genonaut.domain.recommendations import Options

    day_s = 86_400
    return Options(
        list_size=settings.recommend_list_size,
        per_creator=settings.recommend_per_creator,
        seen_factor=settings.recommend_seen_factor,
        half_life_s=settings.recommend_half_life_days * day_s,
        popular_half_life_s=settings.recommend_popular_half_life_days * day_s,
        seed=seed,
        fit=collaborative.Options(
            head_items=settings.recommend_head_items,
            regularization=settings.recommend_regularization,
        ),
    )


def _goes_on(session: Any, params: Params, at: At, how: dict[str, Any]) -> bool:
    """Whether what a run has written may be added to, as it would be made the same way today."""
    if at.generation is None:
        return True
    if not generations.is_there(session, at.generation):
        return False
    is_begun = params.scope is Scope.ALL and not at.is_written
    return not is_begun or generations.is_made_with(session, at.generation, how)


def _stays(session: Any, params: Params) -> str | None:
    """Say why the current lists stay: somebody went back to them, or newer ones were refused."""
    if params.force or params.scope is Scope.USER:
        return None
    if left := generations.gone_back_from(session):
        return f"generation {left} was gone back from; force=true makes lists all the same"
    if params.scope is Scope.ALL:  # which is judged anew
        return None
    if refused := generations.refused_since(session):
        return f"generation {refused} was refused; single lists stay as they are until one is not"
    return None


def _named(session: Any, params: Params, current: Any, as_of: datetime) -> list[UUID] | None:
    """Name the users whose lists alone are made; None for everyone's."""
    if params.scope is Scope.USER and params.user_id is not None:
        return [params.user_id]
    if params.scope is Scope.ACTIVE_SINCE and current is not None:
        since = params.since or current.refreshed_to or current.as_of
        return generations.active_since(session, since, until=as_of)
    return None


def _chosen(data: "Signals", named: list[UUID] | None) -> "Any":
    """Give the indices of the users whose lists are made, ascending."""
    import numpy as np

    if named is None:
        return np.unique(data.feedback.user).astype(np.int64)
    wanted = np.array([user.bytes for user in named], "V16")
    place = np.searchsorted(data.users, wanted).clip(max=max(len(data.users) - 1, 0))
    known = data.users[place] == wanted if len(data.users) else np.zeros(len(wanted), bool)
    return np.intersect1d(place[known], data.feedback.user)


def _begin(ctx: TaskContext, params: Params, at: At, current: Any, said: dict[str, Any]) -> At:
    """Begin the generation, or say why its lists are not made."""
    if params.scope is not Scope.ALL:
        return at.model_copy(update={"generation": current.id})
    refused = None if params.accept_fall else _fall(ctx, current, at.evaluation)
    score = at.evaluation.model_dump() if at.evaluation else None
    with ctx.transaction() as session:
        made = generations.begin(
            session, run_id=ctx.run_id, as_of=at.as_of, evaluation=score, refused=refused, **said
        )
        begun = at.model_copy(update={"generation": made})
        if refused is None:
            ctx.checkpoint(session, begun)
    if refused is not None:
        raise QualityFellError(refused)
    return begun


def _fall(ctx: TaskContext, current: Any, score: Score | None) -> str | None:
    from genonaut.domain.recommendations import Evaluation

    if current is None or current.evaluation is None or score is None:
        return None
    with suppress(TypeError):  # stored by a release that measured something else
        before, now = Evaluation(**current.evaluation), Evaluation(**score.model_dump())
        if now.is_worse_than(before, ctx.settings.recommend_max_fall):
            return (
                f"NDCG@20 fell from {before.ndcg:.4f} to {now.ndcg:.4f}; generation {current.id}"
                " stays (accept_fall=true takes the new lists all the same)"
            )
    return None


def _write(
    ctx: TaskContext,
    params: Params,
    at: At,
    data: "Signals",
    learned: "Recommender",
    chosen: Any,
) -> At:
    """Write the lists block by block, each with the checkpoint it reaches; then switch."""
    from genonaut.domain import recommendation_writing as writing

    generation = at.generation or 0
    whole = params.scope is Scope.ALL
    if at.last_user is not None:
        done = _after(data.users[chosen], at.last_user)
        chosen = chosen[done:]
    total = at.users + len(chosen)
    for start in range(0, len(chosen), BLOCK):
        block = chosen[start : start + BLOCK]
        lists = learned.lists(block)
        users = data.users[block]
        last = UUID(bytes=bytes(users[-1]))
        with ctx.transaction() as session:
            put = writing.write if whole else writing.replace
            rows = put(session, generation, users, lists, data.items)
            at = at.model_copy(
                update={"last_user": last, "users": at.users + len(block), "rows": at.rows + rows}
            )
            ctx.checkpoint(session, at)
        ctx.progress(at.users, total=total, message="writing lists")
    with ctx.transaction() as session:
        if whole:
            everyone = _ids([generations.EVERYONE])
            rows = writing.write(session, generation, everyone, learned.popular(), data.items)
            at = at.model_copy(update={"rows": at.rows + rows})
            generations.switch(session, generation, users=at.users, rows=at.rows)
        elif params.scope is Scope.ACTIVE_SINCE:
            generations.note_refreshed(session, generation, at.as_of)
        at = at.model_copy(update={"is_written": True})
        ctx.checkpoint(session, at)
    return at


def _ids(users: list[UUID]) -> "Ids":
    import numpy as np

    return np.frombuffer(b"".join(user.bytes for user in users), "V16")


def _after(users: "Ids", last: UUID) -> int:
    """Count the users up to ``last``, in the order they are written in."""
    return sum(bytes(user) <= last.bytes for user in users)


def _prune(ctx: TaskContext) -> None:
    with ctx.transaction() as session:
        gone = generations.superfluous(session)
    for generation in gone:
        removed = True
        while removed:
            with ctx.transaction() as session:
                removed = bool(generations.remove_some(session, generation))
            ctx.progress(0, message="removing old lists")
