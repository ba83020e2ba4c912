"""Tell 1,000 sockets of an event, against a Redis connection for each socket."""

import json

from benchmarks.harness.report import Goal, in_turns, note, tell
from benchmarks.harness.stage import NAMESPACE, Served, stage
from benchmarks.harness.swarm import Audience, Swarm
from genonaut.domain import generation
from genonaut.domain.generation import NewJob

GOAL = Goal("ws_fanout", "deliveries/s", 3.0)
SOCKETS = 1000
EVENTS = 6
ROUNDS = 15


def main() -> None:
    """Measure: 1,000 sockets watch one job; both sides send them the same text."""
    with stage() as on:
        (account,) = on.make_accounts(1)
        with on.database.transaction() as session:
            job = generation.create(
                session, account.user_id, NewJob("a lighthouse at dawn"), max_attempts=4
            )
        payload = generation.describe(job).payload()
        message = json.dumps(payload | {"version": "{n}"}).replace('"{n}"', "{n}")
        flag = "--ws-per-message-deflate=false"
        our_server = on.serve("genonaut.api.main:app", flag)
        their_server = on.serve("benchmarks.harness.peers:sockets", flag)
        ours = Swarm(
            Audience(
                port=our_server.port,
                path=f"/ws/jobs/{job.id}",
                token=account.token,
                sockets=SOCKETS,
                redis_url=on.settings.redis_url,
                channel=f"{NAMESPACE}:events:job:{job.id}",
                message=message,
            )
        )
        peer = Swarm(
            Audience(
                port=their_server.port,
                path="/news",
                token="",
                sockets=SOCKETS,
                redis_url=on.environment["BENCH_REDIS_URL"],
                channel="news",
                message=message,
            )
        )

        def rate(server: Served, swarm: Swarm) -> float:
            before = server.cpu_s()
            heard = swarm.broadcast(EVENTS)
            each_us = (server.cpu_s() - before) / (EVENTS * SOCKETS) * 1e6
            note(
                f"  p50 {heard.p50_ms:.1f} ms, p99 {heard.p99_ms:.1f} ms,"
                f" processor {each_us:.0f} µs each"
            )
            return heard.per_second

        rate(our_server, ours)
        rate(their_server, peer)
        tell(
            GOAL,
            in_turns(ROUNDS, lambda: rate(our_server, ours), lambda: rate(their_server, peer)),
        )
        ours.close()
        peer.close()


if __name__ == "__main__":
    main()
