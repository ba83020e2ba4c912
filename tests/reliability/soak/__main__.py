"""``python -m tests.reliability.soak --minutes 5 --seed 7``; ends with 1 when a check fails."""

import argparse
import random
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from tests.reliability.rig import TEMPLATE, Rig, Servers
from tests.reliability.simulator import Comfy
from tests.reliability.soak import plan, report
from tests.reliability.soak.play import soak
from tests.support.database import migrate, sqlalchemy_url
from tests.support.servers import running_postgres, running_valkey

ROOT = Path(__file__).resolve().parents[3]
STEP_S = 0.02


def main(arguments: list[str]) -> int:
    """Soak, and tell; give the exit status."""
    chosen = _parse(arguments)
    seed = random.randrange(10**6) if chosen.seed is None else chosen.seed
    folder = (chosen.out or ROOT / "var" / "soak" / str(seed)).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    console = Console(highlight=False)
    again = f"make soak SEED={seed} MINUTES={chosen.minutes:g}"
    if chosen.pace != plan.PACE_S:
        again += f' ARGS="--pace {chosen.pace:g}"'
    console.print(f"the same again: {again}\nplan and logs: {folder}", soft_wrap=True)
    with ExitStack() as stack:
        postgres = stack.enter_context(running_postgres())
        valkey = stack.enter_context(running_valkey())
        migrate(sqlalchemy_url(postgres.url(TEMPLATE)))
        comfy = Comfy(folder, step_s=STEP_S)
        stack.callback(comfy.close)
        comfy.start()
        rig = Rig(Servers(postgres, valkey, comfy), folder, stack)
        stack.callback(rig.restore)
        outcome = soak(
            rig, plan.make(seed, chosen.minutes * 60, pace_s=chosen.pace), say=console.print
        )
    report.tell(outcome, console)
    with (folder / "report.txt").open("w") as file:
        report.tell(outcome, Console(file=file, width=100))
    return 0 if outcome.is_well else 1


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long things are broken")
    parser.add_argument("--seed", type=int, help="the same seed is the same plan (default: any)")
    parser.add_argument("--pace", type=float, default=plan.PACE_S, help="seconds between faults")
    parser.add_argument("--out", type=Path, help="emptied; plan, logs and report come here")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
