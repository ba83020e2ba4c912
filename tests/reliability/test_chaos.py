"""Break everything at random moments for a while: every job still ends once, in the right state.

A short soak with faults close together (``make soak`` is the long one). The seed is in the report;
set ``CHAOS_SEED`` to run the same plan again.
"""

import os
import random

import pytest

from tests.reliability.rig import MEASURED, Rig
from tests.reliability.soak import plan
from tests.reliability.soak.play import soak

CHAOS_S = 40.0
PACE_S = 1.2


@pytest.mark.slow
def test_whatever_is_broken_at_random_every_job_ends_once(rig: Rig) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(10**6))  # noqa: TID251
    outcome = soak(rig, plan.make(seed, CHAOS_S, pace_s=PACE_S))
    MEASURED.append(
        f"chaos, seed {seed}: {len(outcome.books.jobs)} jobs, {outcome.struck.total()} faults, "
        f"all ended {outcome.settled_s:.0f} s after the last"
    )
    found = [line for lines in outcome.findings.values() for line in lines]
    assert not found, "\n".join([f"CHAOS_SEED={seed}", *found])
