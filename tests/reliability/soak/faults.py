"""What is done to the platform. Each fault leaves it able to recover by itself.

A fault may last: then it gives what ends it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tests.reliability.program import Program
from tests.reliability.rig import on_postgres
from tests.reliability.soak.site import API, BEATS, WIRES, WORKERS, Site

End = Callable[[], object]
Strike = Callable[[Site, str], End | None]

REST_S = 4.0
"""A program that was struck is left alone for so long: else faults hit what is starting."""

_HANG_UP = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'genonaut'"
)


class NothingThereError(Exception):
    """What was to be struck is not there at this moment."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: how it is done, to what, for how long, and for how long that then rests."""

    strike: Strike
    targets: tuple[str, ...]
    lasts_s: tuple[float, float]
    rest_s: float


KINDS: dict[str, Kind] = {}


def fault(
    *targets: str, lasts_s: tuple[float, float] = (0.0, 0.0), rest_s: float = REST_S
) -> Callable[[Strike], Strike]:
    """Make a function a kind of fault."""

    def register(strike: Strike) -> Strike:
        KINDS[strike.__name__] = Kind(strike, targets, lasts_s, rest_s)
        return strike

    return register


@fault(*WORKERS, lasts_s=(0.0, 4.0))
def kill_worker(site: Site, name: str) -> End:
    return site.places[name].take_down(Program.kill9)


@fault(*WORKERS, lasts_s=(0.0, 4.0))
def kill_worker_but_not_its_children(site: Site, name: str) -> End:
    return site.places[name].take_down(Program.kill_main)


@fault(*WORKERS)
def kill_pool_children(site: Site, name: str) -> None:
    program = site.program(name)
    if not program.children():
        raise NothingThereError
    if "ready." not in program.own_log:
        site.places[name].excuse()  # Celery ends a worker whose pool dies before it is at work
    program.kill_children()


@fault(*WORKERS, lasts_s=(0.0, 4.0))
def stop_worker(site: Site, name: str) -> End:
    return site.places[name].ask_to_end()


@fault(*WORKERS, lasts_s=(1.0, 10.0))
def freeze_worker(site: Site, name: str) -> End:
    return _freeze(site.program(name))


@fault(*BEATS, lasts_s=(0.0, 4.0))
def kill_beat(site: Site, name: str) -> End:
    return site.places[name].take_down(Program.kill9)


@fault(*BEATS, lasts_s=(1.0, 25.0))
def freeze_beat(site: Site, name: str) -> End:
    return _freeze(site.program(name))


@fault(API, lasts_s=(0.0, 2.0))
def kill_api(site: Site, name: str) -> End:
    return site.places[name].take_down(Program.kill9)


@fault("redis", rest_s=0.0)
def flush_redis(site: Site, _: str) -> None:
    site.rig.redis.flushdb()


@fault("redis", lasts_s=(0.0, 4.0))
def restart_redis(site: Site, _: str) -> End:
    site.rig.valkey.kill9()
    return site.rig.valkey.start


@fault("redis")
def restart_redis_empty(site: Site, _: str) -> None:
    site.rig.valkey.forget()


@fault("redis", lasts_s=(1.0, 7.0))
def freeze_redis(site: Site, _: str) -> End:
    site.rig.valkey.pause()
    return site.rig.valkey.cont


@fault("redis", rest_s=0.0)
def cut_connections_to_redis(site: Site, _: str) -> None:
    site.rig.cut_connections()


@fault("postgres", lasts_s=(0.0, 4.0))
def crash_postgres(site: Site, _: str) -> End:
    site.rig.postgres.kill9()
    return site.rig.postgres.start


@fault("postgres", lasts_s=(0.0, 4.0))
def restart_postgres(site: Site, _: str) -> End:
    site.rig.postgres.stop()
    return site.rig.postgres.start


@fault("postgres", lasts_s=(1.0, 7.0))
def freeze_postgres(site: Site, _: str) -> End:
    site.rig.postgres.pause()
    return site.rig.postgres.cont


@fault("postgres", rest_s=0.0)
def cut_connections_to_postgres(site: Site, _: str) -> None:
    on_postgres(site.rig.postgres, _HANG_UP)


@fault("comfyui", lasts_s=(0.0, 4.0))
def restart_comfyui(site: Site, _: str) -> End:
    site.rig.comfy.stop()
    return site.rig.comfy.start


@fault("comfyui", rest_s=0.0)
def make_comfyui_forget(site: Site, _: str) -> None:
    site.rig.comfy.faults(forget=True)


@fault("comfyui", lasts_s=(1.0, 6.0))
def freeze_comfyui(site: Site, _: str) -> End:
    program = site.rig.comfy.program
    assert program is not None
    return _freeze(program)


@fault(*WIRES, lasts_s=(0.5, 8.0))
def cut_wire(site: Site, wire: str) -> End:
    site.wires[wire].refuse()
    return site.wires[wire].forward


@fault(*WIRES, lasts_s=(0.5, 8.0))
def swallow_on_wire(site: Site, wire: str) -> End:
    site.wires[wire].black_hole()
    return site.wires[wire].forward


@fault(*WIRES, rest_s=0.0)
def drop_wire(site: Site, wire: str) -> None:
    site.wires[wire].drop()


def _freeze(program: Program) -> End:
    program.pause()
    return program.cont
