"""Say when a schedule is due, and whether it can be run: what the rules are told about terms."""

from dataclasses import replace
from datetime import datetime
from functools import partial

from genonaut.core.errors import InvalidInputError
from genonaut.domain.runs import Trigger
from genonaut.domain.schedules import Reckon, Terms
from genonaut.worker import discovery, task
from genonaut.worker.schedule import Timing, next_due


def timing_of(terms: Terms) -> Timing:
    """Give the timing of terms that were checked once."""
    return Timing(terms.cron, terms.every_s, terms.anchor_at, terms.timezone)


def checked_timing(terms: Terms) -> Terms:
    """Give terms with their timing in its usual form.

    Raises: InvalidInputError: naming the field.
    """
    terms.check()
    timing = Timing.parse(
        cron=terms.cron,
        every_s=terms.every_s,
        anchor_at=terms.anchor_at,
        timezone=terms.timezone,
    )
    return replace(
        terms,
        cron=timing.cron,
        every_s=timing.every_s,
        anchor_at=timing.anchor_at,
        timezone=timing.timezone,
    )


def checked(terms: Terms) -> Terms:
    """Give an operator's terms in their usual form: timing and parameters in full.

    Raises: InvalidInputError: naming the field.
    """
    discovery.load()
    try:
        definition = task.find(terms.task)
    except task.UnknownTaskError as error:
        raise InvalidInputError(str(error), field="task") from error
    params = definition.validate(terms.params)
    try:
        definition.request(params, trigger=Trigger.SCHEDULE)
    except Exception as error:  # the task's own overlap key
        raise InvalidInputError(
            f"{definition.name} cannot tell which runs overlap: {error}", field="params"
        ) from error
    whole = replace(terms, task=definition.name, params=params.model_dump(mode="json"))
    return checked_timing(whole)


def due_after(terms: Terms, now: datetime) -> datetime:
    """Give the first due time after ``now``.

    Raises: InvalidInputError: a value is wrong, or not right any more.
    """
    return next_due(timing_of(checked(terms)), now)


def reckon_after(now: datetime) -> Reckon:
    """Give :func:`due_after` for a fixed moment, as the rules take it."""
    return partial(due_after, now=now)
