"""A plan is carried out in its order, and what is down is not struck once more when we are late."""

from types import SimpleNamespace

from tests.reliability.soak import faults, play
from tests.reliability.soak.plan import Fault, Plan


def test_what_is_still_down_is_not_struck(monkeypatch):
    told: list[str] = []

    def strike(_, target):
        told.append(f"{target} down")
        return lambda: told.append(f"{target} up")

    kind = faults.Kind(strike, ("one", "two"), lasts_s=(1, 1), rest_s=0)
    monkeypatch.setitem(play.KINDS, "break", kind)
    planned = [(-9, "one"), (-8, "one"), (-7, "two"), (30, "one")]
    made = tuple(Fault(at_s, "break", target, 1) for at_s, target in planned)
    site = SimpleNamespace(keep_until=lambda at: None)
    struck, missed = play._break_things(site, Plan(1, 40, made, ()), lambda _: None)
    assert told == ["one down", "two down", "one up", "two up", "one down", "one up"]
    assert (struck["break"], missed["break"]) == (3, 1)
