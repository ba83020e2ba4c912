"""Say what bodies about schedules may hold; what does not fit is a 422 that names the field."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, ConfigDict, Field

from genonaut.api.requests import Body, ParamsField, ReasonField, storable
from genonaut.domain.runs import Overlap
from genonaut.domain.schedules import MAX_CRON, MAX_JITTER_S, MAX_LATE_S, Missed, Terms
from genonaut.worker.schedule import MAX_EVERY_S, Timing

_YEARS = range(1900, 9000)


def _is_text(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("must be a time as text, such as 2026-01-05T10:00:00+00:00")  # noqa: TRY004
    return value


def _in_range(moment: datetime) -> datetime:
    if moment.year not in _YEARS:
        raise ValueError(f"must be in the years {_YEARS[0]} to {_YEARS[-1]}")
    return moment


Moment = Annotated[
    AwareDatetime, Field(strict=False), BeforeValidator(_is_text), AfterValidator(_in_range)
]
Word = Annotated[str, Field(max_length=100), AfterValidator(storable)]

_TIMING: dict[str, Any] = {"cron": "30 2 * * *", "timezone": "Europe/Berlin"}
_TERMS: dict[str, Any] = {"task": "content.refresh_stats", "params": {"days": 7}, **_TIMING}


class TimingRequest(Body):
    """When something is due: a cron or an interval."""

    model_config = ConfigDict(json_schema_extra={"example": _TIMING})

    cron: Annotated[str, Field(max_length=MAX_CRON), AfterValidator(storable)] | None = Field(
        default=None, description="Five fields, or `@daily` and its like; see docs/schedules.md."
    )
    every_s: int | None = Field(
        default=None, ge=1, le=MAX_EVERY_S, description="An interval instead, seconds."
    )
    anchor_at: Moment | None = Field(
        default=None, description="From when the interval counts; left out: from 1970."
    )
    timezone: Word = Field(default="UTC", description="Whose wall clock the cron means.")

    def to_timing(self) -> Timing:
        """Give it to the calendar.

        Raises: InvalidInputError: naming the field.
        """
        return Timing.parse(
            cron=self.cron,
            every_s=self.every_s,
            anchor_at=self.anchor_at,
            timezone=self.timezone,
        )


class TermsRequest(TimingRequest):
    """What a schedule runs, and when; what is left out takes its default."""

    model_config = ConfigDict(json_schema_extra={"example": _TERMS})

    task: Word = Field(description="As `GET /admin/tasks` lists it.")
    params: ParamsField = Field(
        default={}, description="As `params_schema` of the task says; what is left out is default."
    )
    overlap: Literal["skip", "wait", "allow"] | None = Field(
        default=None,
        description="What becomes of a run while one is unfinished; left out: as the task says.",
    )
    missed: Literal["run_once", "skip"] = Field(
        default="run_once",
        description="What becomes of due times at which nothing could be started.",
    )
    late_limit_s: int = Field(
        default=300, ge=0, le=MAX_LATE_S, description="What `skip` takes for too late, seconds."
    )
    jitter_s: int = Field(
        default=0, ge=0, le=MAX_JITTER_S, description="By how much a run may begin later, seconds."
    )

    def to_terms(self) -> Terms:
        """Give it to the domain, unchecked."""
        return Terms(
            task=self.task,
            params=self.params,
            cron=self.cron,
            every_s=self.every_s,
            anchor_at=self.anchor_at,
            timezone=self.timezone,
            overlap=Overlap(self.overlap) if self.overlap else None,
            missed=Missed(self.missed),
            late_limit_s=self.late_limit_s,
            jitter_s=self.jitter_s,
        )


class ScheduleRequest(TermsRequest):
    """A new schedule."""

    model_config = ConfigDict(json_schema_extra={"example": {"name": "stats.nightly", **_TERMS}})

    name: Word = Field(description="1 to 100 of a-z, 0-9, `.`, `_`, `-`; it cannot be changed.")


class PauseRequest(Body):
    """Let one schedule, or all, rest."""

    model_config = ConfigDict(json_schema_extra={"example": {"reason": "while we move the disk"}})

    reason: ReasonField | None = Field(default=None, description="Why; shown with the pause.")
    until: Moment | None = Field(
        default=None, description="When it ends by itself; left out: when it is resumed."
    )


class ScheduleRunRequest(Body):
    """Ask for a run with a schedule's parameters."""

    model_config = ConfigDict(json_schema_extra={"example": {"reason": "to see whether it works"}})

    dry_run: bool = Field(
        default=False, description="Say what would be done, and do nothing; if the task can."
    )
    reason: ReasonField | None = Field(
        default=None, description="Why; shown with the run and in the audit log."
    )
