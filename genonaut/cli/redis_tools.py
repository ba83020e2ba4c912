"""Look into the environment's Redis, and empty it safely."""

from collections import Counter
from typing import Annotated

import redis
import typer

from genonaut.api.config import Settings
from genonaut.cli.environment import settings_for
from genonaut.cli.output import (
    EnvOption,
    JsonOption,
    console,
    fail,
    print_fields,
    print_json,
    print_table,
)
from genonaut.cli.servers import embedded, redis_client

app = typer.Typer(help="The environment's Redis.", no_args_is_help=True, add_completion=False)


def _databases(settings: Settings) -> list[str]:
    """Give the URLs in use, once each: one, unless broker or results have their own database."""
    urls = (settings.redis_url, settings.celery_broker_url, settings.celery_result_backend)
    return list(dict.fromkeys(urls))


def _unavailable(settings: Settings, error: redis.RedisError) -> None:
    fail(f"Redis does not answer ({error}); start it, or set REDIS_URL_{settings.app_env.upper()}")


@app.command("keys")
def keys(env: EnvOption = None, as_json: JsonOption = False) -> None:
    """List the environment's keys with their types."""
    settings = settings_for(env)
    rows = []
    try:
        with embedded(settings, postgres=False):
            for url in _databases(settings):
                with redis_client(url) as client:
                    number = client.connection_pool.connection_kwargs.get("db", 0)
                    names = sorted(client.scan_iter(f"{settings.redis_ns}:*", count=1000))
                    rows += [{"db": number, "key": k, "type": client.type(k)} for k in names]
    except redis.RedisError as error:
        _unavailable(settings, error)
    if as_json:
        print_json(rows)
    else:
        print_table(["DB", "TYPE", "KEY"], [(r["db"], r["type"], r["key"]) for r in rows])


@app.command("info")
def info(env: EnvOption = None, as_json: JsonOption = False) -> None:
    """Show the server's version, memory and policy, and how many keys are there."""
    settings = settings_for(env)
    try:
        with embedded(settings, postgres=False), redis_client(settings.redis_url) as client:
            told: dict[str, object] = client.info()
            fields = {
                "server": _server(told),
                "memory": told.get("used_memory_human"),
                "maxmemory_policy": told.get("maxmemory_policy"),
                "append_only": bool(told.get("aof_enabled")),
                "clients": told.get("connected_clients"),
                "namespace": settings.redis_ns,
                "keys": client.dbsize(),
            }
    except redis.RedisError as error:
        _unavailable(settings, error)
    if as_json:
        print_json(fields)
    else:
        print_fields(fields)


def _server(told: dict[str, object]) -> str:
    # Valkey calls itself Redis 7.2 to whoever asks for `redis_version`.
    version = told.get("valkey_version") or told.get("redis_version")
    return f"{told.get('server_name', 'redis')} {version}"


@app.command("flush")
def flush(
    yes: Annotated[bool, typer.Option("--yes", help="Do it; needed for all but dev.")] = False,
    env: EnvOption = None,
) -> None:
    """Empty the environment's own logical database, after showing what is dropped.

    Nothing is lost by it: PostgreSQL knows every job, and workers publish them again.
    """
    settings = settings_for(env)
    prefix = f"{settings.redis_ns}:"
    try:
        with embedded(settings, postgres=False):
            for url in _databases(settings):
                with redis_client(url) as client:
                    _flush_one(client, prefix, confirmed=yes or settings.app_env == "dev")
    except redis.RedisError as error:
        _unavailable(settings, error)


def _flush_one(client: redis.Redis, prefix: str, *, confirmed: bool) -> None:
    names: list[str] = sorted(client.scan_iter(count=1000))
    foreign = [name for name in names if not name.startswith(prefix)]
    if foreign:
        fail(
            f"this database also holds {len(foreign)} keys of others (such as {foreign[0]!r}); "
            "nothing was dropped"
        )
    kinds = Counter(name.removeprefix(prefix).partition(".")[0] for name in names)
    for kind, number in sorted(kinds.items()):
        console.print(f"{number:6}  {prefix}{kind}…" if number > 1 else f"     1  {prefix}{kind}")
    if not confirmed:
        fail("nothing was dropped; say CONFIRM=yes (or --yes) to drop these", status=2)
    client.flushdb()
    console.print(f"dropped {len(names)} keys")
