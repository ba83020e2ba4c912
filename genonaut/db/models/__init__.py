"""Hold the tables, one file per aggregate."""

from genonaut.db.models.abandoned import AbandonedPrompt
from genonaut.db.models.base import Base
from genonaut.db.models.content import ContentImage, ContentItem
from genonaut.db.models.jobs import GenerationJob, JobAttempt
from genonaut.db.models.notifications import (
    NotificationAddress,
    NotificationDelivery,
    NotificationPreference,
    SigningKey,
    UserNotification,
)
from genonaut.db.models.platform import AuditEntry, Heartbeat, IdempotencyKey, WebhookReceipt
from genonaut.db.models.recommendations import (
    Recommendation,
    RecommendationGeneration,
    RecommendationServe,
    UserInteraction,
)
from genonaut.db.models.repairs import Repair
from genonaut.db.models.runs import RunFailure, TaskRun
from genonaut.db.models.schedules import Schedule, SchedulePause
from genonaut.db.models.stats import ContentStat
from genonaut.db.models.users import ApiToken, LoginSession, User

__all__ = [
    "AbandonedPrompt",
    "ApiToken",
    "AuditEntry",
    "Base",
    "ContentImage",
    "ContentItem",
    "ContentStat",
    "GenerationJob",
    "Heartbeat",
    "IdempotencyKey",
    "JobAttempt",
    "LoginSession",
    "NotificationAddress",
    "NotificationDelivery",
    "NotificationPreference",
    "Recommendation",
    "RecommendationGeneration",
    "RecommendationServe",
    "Repair",
    "RunFailure",
    "Schedule",
    "SchedulePause",
    "SigningKey",
    "TaskRun",
    "User",
    "UserInteraction",
    "UserNotification",
    "WebhookReceipt",
]
