"""Bring the schedules that the code declares together with the rows that operators edit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from genonaut.db.models import Schedule
from genonaut.domain.schedules import Reckon, Source, Terms, insert_new, judged, write

GONE = "the code does not declare it any more"


@dataclass(frozen=True, slots=True)
class Changes:
    """What was done, by name."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    disabled: dict[str, str] = field(default_factory=dict)


def synchronise(session: Session, defaults: Mapping[str, Terms], reckon: Reckon) -> Changes:
    """Make the rows say what ``defaults`` say, but for what operators decided; safe to repeat.

    A new default is due after now. A row follows its default unless an operator edited it. One
    whose default is gone, or that cannot be run (its task is unknown, its parameters do not
    validate any more), is disabled with the reason and keeps its history; once that is mended it is
    due after now. A pause is never touched. A row is due anew only when its timing changes.
    """
    changes = Changes()
    rows = session.scalars(select(Schedule).order_by(Schedule.name).with_for_update()).all()
    for row in rows:
        wanted = _wanted(row, defaults.get(row.name), reckon)
        differing = {name: value for name, value in wanted.items() if getattr(row, name) != value}
        if not differing:
            continue
        write(session, row.name, (), **differing)
        if differing.get("disabled_reason"):
            changes.disabled[row.name] = differing["disabled_reason"]
        else:
            changes.changed.append(row.name)
    for name in sorted(defaults.keys() - {row.name for row in rows}):
        terms = defaults[name]
        verdict = judged(terms, reckon)
        new = {"source": Source.CODE, "code_default": terms.public(), **verdict}
        if insert_new(session, name, terms, **new) is not None:
            changes.added.append(name)
            if verdict["disabled_reason"]:
                changes.disabled[name] = verdict["disabled_reason"]
    return changes


def _wanted(row: Schedule, default: Terms | None, reckon: Reckon) -> dict[str, Any]:
    """Give the columns as they should be."""
    stored = Terms.of(row)
    if default is None:
        if row.source == Source.CODE:
            return {"code_default": None, "next_due_at": None, "disabled_reason": GONE}
        return _due(row, stored, reckon)
    code = default.public()
    decided = row.is_edited or row.source == Source.OPERATOR
    is_edited = decided and stored.public() != code
    terms = stored if is_edited else default
    return {
        **terms.columns(),
        "source": Source.CODE,
        "code_default": code,
        "is_edited": is_edited,
        **_due(row, terms, reckon),
    }


def _due(row: Schedule, terms: Terms, reckon: Reckon) -> dict[str, Any]:
    verdict = judged(terms, reckon)
    keeps = row.next_due_at is not None and Terms.of(row).timing == terms.timing
    if verdict["next_due_at"] is not None and keeps:
        verdict["next_due_at"] = row.next_due_at
    return verdict
