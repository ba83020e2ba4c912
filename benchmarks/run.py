"""Run one benchmark or all and print the table: ``python benchmarks/run.py [name ...]``."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness.report import Goal

FOLDER = Path(__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("[!_]*.py") if path.name != "run.py")


def run(name: str) -> dict[str, Any] | None:
    """Run one; None when it failed, its errors are on standard error then."""
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py")],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    return json.loads(lines[-1]) if done.returncode == 0 and lines else None


def table(results: dict[str, dict[str, Any] | None]) -> Table:
    """Lay the results out."""
    made = Table("bench", "ours", "peer", "unit", "ratio", "goal", "", title="Benchmarks")
    for name, found in results.items():
        if found is None:
            made.add_row(name, "", "", "", "", "", "[red]failed")
            continue
        goal = Goal(name, found["unit"], found["goal"], found["better"])
        sign = "≥" if goal.better == "higher" else "≤"
        met = goal.is_met(found["ratio"])
        made.add_row(
            name,
            f"{found['ours']:,.1f}",
            f"{found['peer']:,.1f}",
            goal.unit,
            f"{found['ratio']:.2f}",
            f"{sign} {goal.ratio:g}",
            "[green]met" if met else "[yellow]not met",
        )
    return made


def main(wanted: list[str]) -> int:
    """Give 1 when a benchmark failed to run; a missed goal is shown, not an error."""
    unknown = sorted(set(wanted) - set(NAMES))
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(NAMES)}")
        return 2
    results = {}
    for name in wanted or NAMES:
        print(f"== {name}", file=sys.stderr, flush=True)
        results[name] = run(name)
    Console().print(table(results))
    return int(None in results.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
