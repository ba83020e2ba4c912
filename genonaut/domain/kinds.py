"""Name the kinds of facts that users hear of."""

from enum import StrEnum


class Kind(StrEnum):
    """What happened."""

    JOB_COMPLETED = "job_completed"
    JOB_FAILED = "job_failed"
    JOB_CANCELLED = "job_cancelled"
    BATCH_COMPLETED = "batch_completed"
    RECOMMENDATION = "recommendation"
    SYSTEM = "system"
    RUN_FAILED = "run_failed"
    SCHEDULE_LATE = "schedule_late"
