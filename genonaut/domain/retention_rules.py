"""Say how old what grows with use becomes, and what is kept however old it is."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, true, union_all
from sqlalchemy.orm import aliased

from genonaut.db.models import (
    ApiToken,
    AuditEntry,
    Base,
    GenerationJob,
    IdempotencyKey,
    JobAttempt,
    LoginSession,
    NotificationDelivery,
    RecommendationGeneration,
    RunFailure,
    Schedule,
    TaskRun,
    UserNotification,
    WebhookReceipt,
)
from genonaut.domain import kinds
from genonaut.domain.lifecycle import FINAL, UNFINISHED, Status
from genonaut.domain.retention import Keys, Kind, Rule, among

_REMEMBERED = timedelta(weeks=52)
"""How long nobody is told again of the same picture."""


def rules(days: Mapping[Kind, int]) -> list[Rule]:
    """Give a rule for each kind, in the order to follow them.

    ``days`` has the ages of those that operators choose; 0 is for ever, and there is no rule then.
    """

    def aged(kind: Kind, model: type[Base], at: Any, **values: Any) -> list[Rule]:
        """Give the rule of a kind whose age operators choose, unless it is kept for ever."""
        age = timedelta(days=days[kind])
        return [Rule(kind=kind, model=model, at=at, age=age, **values)] if age else []

    unread = UserNotification.read_at.is_(None)
    deliveries = {Kind.DELIVERIES: NotificationDelivery.notification_id}
    token_ended_at = func.least(ApiToken.revoked_at, ApiToken.expires_at)
    none, a_day = timedelta(0), timedelta(days=1)
    return [
        *aged(
            Kind.READ_NOTIFICATIONS,
            UserNotification,
            UserNotification.read_at,
            unless=_is_not_sent_or_forgotten,
            parts=deliveries,
        ),
        *aged(
            Kind.UNREAD_NOTIFICATIONS,
            UserNotification,
            UserNotification.created_at,
            when=(unread,),
            unless=_is_not_sent_or_forgotten,
            parts=deliveries,
        ),
        *aged(
            Kind.DELIVERIES,
            NotificationDelivery,
            NotificationDelivery.completed_at,
            when=(NotificationDelivery.notification_id.is_(None),),
            kept_by=(aliased(NotificationDelivery).retry_of,),
        ),
        *aged(Kind.TIMELINES, JobAttempt, JobAttempt.ended_at, unless=_job_is_not_old),
        *aged(
            Kind.RUNS,
            TaskRun,
            TaskRun.completed_at,
            when=(TaskRun.status.in_(FINAL),),
            unless=_is_last_of_its_schedule,
            named_by=(TaskRun.parent_id, TaskRun.retry_of),
            kept_by=(RecommendationGeneration.run_id,),
            parts={"failed_items": RunFailure.run_id},
        ),
        *aged(Kind.AUDIT, AuditEntry, AuditEntry.at, is_audited=True),
        *aged(Kind.TOKENS, ApiToken, token_ended_at),
        # These are of no use to anybody any more.
        Rule(kind=Kind.SESSIONS, model=LoginSession, at=LoginSession.expires_at, age=none),
        Rule(
            kind=Kind.IDEMPOTENCY_KEYS,
            model=IdempotencyKey,
            at=IdempotencyKey.expires_at,
            age=none,
        ),
        Rule(
            kind=Kind.WEBHOOK_RECEIPTS,
            model=WebhookReceipt,
            at=WebhookReceipt.received_at,
            age=a_day,
        ),
    ]


def _is_not_sent_or_forgotten(_: Rule, keys: Keys | None) -> ColumnElement[bool]:
    """Keep what is still to be sent, and what the weekly digest would else tell of again."""
    owner = NotificationDelivery.notification_id
    unsent = select(owner).where(owner.is_not(None), NotificationDelivery.status.in_(UNFINISHED))
    if keys is not None:
        unsent = unsent.where(among(owner, keys))
    is_remembered = and_(
        UserNotification.kind == kinds.Kind.RECOMMENDATION,
        UserNotification.created_at > func.now() - _REMEMBERED,
    )
    return or_(UserNotification.id.in_(unsent), is_remembered)


def _job_is_not_old(rule: Rule, _: Keys | None) -> ColumnElement[bool]:
    ended = select(GenerationJob.id).where(
        GenerationJob.id == JobAttempt.job_id,
        GenerationJob.status.in_(FINAL),
        GenerationJob.completed_at < func.now() - rule.age,
    )
    return ~ended.exists()


def _is_last_of_its_schedule(_: Rule, keys: Keys | None) -> ColumnElement[bool]:
    """Keep how far a schedule is accounted for, and how it went the last time that it ran."""
    run = aliased(TaskRun)
    named = select(Schedule.name)
    if keys is not None:
        mine = aliased(TaskRun)
        named = named.where(Schedule.name.in_(select(mine.schedule).where(among(mine.id, keys))))
    schedules = named.subquery()

    def last(*conditions: ColumnElement[bool]) -> Select[Any]:
        """Give, by its index, the last run of each."""
        newest = (
            select(run.id)
            .where(run.schedule == schedules.c.name, *conditions)
            .order_by(run.due_at.desc())
            .limit(1)
            .lateral()
        )
        return select(newest.c.id).select_from(schedules).join(newest, true())

    return TaskRun.id.in_(union_all(last(), last(run.status != Status.SKIPPED)))
