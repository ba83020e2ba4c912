"""Go by one rule of the reaper, as the reconciler does."""

from dataclasses import replace
from typing import Any

from genonaut.db.session import Database
from genonaut.domain import repairs
from genonaut.domain.repairs import Limits, Rule

LIMITS = Limits(
    lease_grace_s=5,
    stuck_grace_s=60,
    job_limit_s=1800,
    run_limits_s={"toys.count": 600.0, "toys.known": 60.0},
    unknown_after_s=60,
    retry_backoff_s=5,
)


def sweep(database: Database, rule: Rule[Any], **options: Any) -> dict[str, list[int | None]]:
    """Sweep one batch; give the ids by what became of them. Limits may be given by name."""
    batch = {name: options.pop(name) for name in ("limit", "after") if name in options}
    with database.transaction() as session:
        done = repairs.sweep(session, rule, replace(LIMITS, **options), **batch).done
    moved: dict[str, list[int | None]] = {}
    for stale in done:
        moved.setdefault(stale.becomes, []).append(stale.id)
    return moved
