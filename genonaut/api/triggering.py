"""Answer requests for runs: who asked by which way, what became of it, and the audit entry."""

from typing import Any, TypeAlias

from fastapi import Request
from sqlalchemy.orm import Session

from genonaut.api import answers_admin as answers
from genonaut.api.deps import Caller
from genonaut.domain import runs, users
from genonaut.domain.idempotency import Answer
from genonaut.domain.runs import Taken, Trigger
from genonaut.domain.users import Principal

RUNS = "/api/v1/admin/runs"

CLI_AGENT = "genonaut-cli"
"""How the command line names itself in ``User-Agent``."""

Made: TypeAlias = tuple[Answer, dict[str, str]]

_LOCATION = {"Location": {"description": "The run.", "schema": {"type": "string"}}}

ACCEPTED: dict[int | str, dict[str, Any]] = {
    200: {
        "model": answers.Run,
        "description": "An unfinished run stands for what is asked; it is this one.",
        "headers": _LOCATION,
    },
    202: {
        "model": answers.Run,
        "description": "The run is stored and will be worked on.",
        "headers": _LOCATION,
    },
}


def of(request: Request, caller: Caller) -> Trigger:
    """Say by which way a run is asked for: a page, the command line or another program."""
    if caller.credentials.cookie is not None:
        return Trigger.MANUAL
    agent = request.headers.get("user-agent", "")
    return Trigger.CLI if agent.startswith(f"{CLI_AGENT}/") else Trigger.API


def accepted(
    session: Session,
    who: Principal,
    act: str,
    taken: Taken,
    *,
    target: str | None = None,
    **details: Any,
) -> Made:
    """Write down the act, on ``target`` if it is not the run itself, and give its answer."""
    run = taken.run
    told = {"task": run.task, "reason": run.reason, "is_new": taken.is_new, **details}
    users.audit(session, who, act, target or f"run:{run.id}", told)
    return Answer(202 if taken.is_new else 200, f"{RUNS}/{run.id}", runs.public(run)), {}
