"""Tell how a soak went."""

from rich.console import Console
from rich.table import Table

from tests.reliability.soak.audit import is_temp
from tests.reliability.soak.play import Outcome

SHOWN = 10
"""Findings of one check."""


def tell(outcome: Outcome, console: Console) -> None:
    """Print the tables."""
    console.print(_work(outcome))
    console.print(_faults(outcome))
    console.print(_checks(outcome))
    for promise, found in outcome.findings.items():
        if found:
            console.print(f"[red]not so:[/red] {promise}")
            for line in found[:SHOWN]:
                console.print(f"  {line}", markup=False)
            if len(found) > SHOWN:
                console.print(f"  and {len(found) - SHOWN} more")
    verdict = "[green]nothing lost, nothing doubled[/green]"
    if not outcome.is_well:
        verdict = f"[red]{sum(map(len, outcome.findings.values()))} findings[/red]"
    console.print(f"seed {outcome.plan.seed}: {verdict}")


def _work(outcome: Outcome) -> Table:
    books = outcome.books
    table = Table("what", "count", title=f"soak, seed {outcome.plan.seed}")
    for status in ("completed", "failed", "cancelled"):
        table.add_row(f"jobs {status}", str(sum(job.status == status for job in books.jobs)))
    table.add_row("jobs in all", str(len(books.jobs)))
    table.add_row("attempts at jobs", str(len(books.attempts)))
    lost = sum(attempt.outcome == "worker_lost" for attempt in books.attempts)
    table.add_row("attempts whose worker was lost", str(lost))
    table.add_row("pictures kept, of those drawn", f"{len(books.images)} of {books.drawings}")
    asked = [run for run in books.runs if run.schedule is None]
    table.add_row("runs asked for", str(len(asked)))
    table.add_row("runs of schedules", str(len(books.runs) - len(asked)))
    covered = sum(len(run.covers or ()) for run in books.runs)
    table.add_row("due times covered by a later run", str(covered))
    skipped = sum(run.status == "skipped" for run in books.runs)
    table.add_row("due times skipped, with the reason", str(skipped))
    again = sum(run.attempt > 1 for run in books.runs)
    table.add_row("runs taken up again", str(again))
    strays = books.stray_files()
    temps = sum(map(is_temp, strays))
    table.add_row("files left by attempts cut short", f"{len(strays) - temps} whole, {temps} half")
    said = ", ".join(f"{answer} x {n}" for answer, n in sorted(books.asked.answers.items()))
    table.add_row("answers of the API", said)
    table.add_row("until all had ended", f"{outcome.settled_s:.1f} s")
    table.add_row("longest that a child outlived its parent", f"{outcome.orphaned_s:.0f} s")
    return table


def _faults(outcome: Outcome) -> Table:
    total = outcome.struck.total()
    table = Table("fault", "struck", title=f"{total} faults in {outcome.plan.seconds:.0f} s")
    for kind, times in sorted(outcome.struck.items()):
        table.add_row(kind.replace("_", " "), str(times))
    for kind, times in sorted(outcome.missed.items()):
        table.add_row(f"{kind.replace('_', ' ')}: nothing there", str(times))
    return table


def _checks(outcome: Outcome) -> Table:
    table = Table("what must hold", "", title="the books")
    for promise, found in outcome.findings.items():
        table.add_row(promise, f"[red]{len(found)} findings[/red]" if found else "[green]yes")
    return table
