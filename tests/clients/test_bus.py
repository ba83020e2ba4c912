"""The bus against a real Valkey: delivery, namespaces, outages and reconnection."""

import asyncio
import time
from collections.abc import Iterator

import pytest
import redis

from genonaut.clients.bus import EventPublisher, EventSubscriber, Heard
from genonaut.core.events import Event
from tests.support.servers import RunningValkey, free_port, running_valkey


@pytest.fixture(scope="module")
def valkey() -> Iterator[RunningValkey]:
    with running_valkey() as server:
        yield server


@pytest.fixture
def publisher(valkey: RunningValkey) -> Iterator[EventPublisher]:
    made = EventPublisher(valkey.url(3), "t")
    yield made
    made.close()


def change(job_id: int = 7, version: int = 1, *, final: bool = False) -> Event:
    return Event("job", job_id, version, (f"job:{job_id}", "user:u"), {"id": job_id}, final=final)


async def until(condition, timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


@pytest.fixture
def with_subscriber(valkey: RunningValkey):
    def run(scenario, **options) -> None:
        async def whole() -> None:
            subscriber = EventSubscriber(valkey.url(3), "t", **options)
            subscriber.start()
            try:
                await scenario(subscriber)
            finally:
                await subscriber.stop()

        asyncio.run(whole())

    return run


def test_a_watched_topic_is_heard_from_the_moment_watch_returns(with_subscriber, publisher):
    async def scenario(subscriber: EventSubscriber) -> None:
        heard: list[Heard] = []
        assert await subscriber.watch("job:7", heard.append)
        await asyncio.to_thread(publisher.publish, [change(version=3, final=True), change(8)])
        await until(lambda: heard)
        assert (heard[0].kind, heard[0].id, heard[0].version, heard[0].final) == (
            "job", 7, 3, True,
        )  # fmt: skip
        assert len(heard) == 1

    with_subscriber(scenario)


def test_two_watchers_of_one_topic_share_a_subscription_and_leave_alone(
    with_subscriber, publisher, valkey
):
    async def scenario(subscriber: EventSubscriber) -> None:
        admin = redis.Redis.from_url(valkey.url(3))
        first: list[Heard] = []
        second: list[Heard] = []
        await subscriber.watch("job:7", first.append)
        # A bound method of a list is equal to itself only for the same list object.
        deliver_second = second.append
        await subscriber.watch("job:7", deliver_second)
        assert admin.pubsub_numsub("t:events:job:7")[0][1] == 1
        await asyncio.to_thread(publisher.publish, [change()])
        await until(lambda: first and second)
        await subscriber.unwatch("job:7", deliver_second)
        await asyncio.to_thread(publisher.publish, [change(version=2)])
        await until(lambda: len(first) == 2)
        assert len(second) == 1
        admin.close()

    with_subscriber(scenario)


def test_the_last_watcher_to_leave_ends_the_subscription(with_subscriber, valkey):
    async def scenario(subscriber: EventSubscriber) -> None:
        admin = redis.Redis.from_url(valkey.url(3))
        heard: list[Heard] = []
        deliver = heard.append
        for _ in range(20):
            await subscriber.watch("job:9", deliver)
            await subscriber.unwatch("job:9", deliver)
        await until(lambda: admin.pubsub_numsub("t:events:job:9")[0][1] == 0)
        assert await subscriber.watch("job:9", deliver)
        assert admin.pubsub_numsub("t:events:job:9")[0][1] == 1
        assert all(c.startswith(b"t:") for c in admin.pubsub_channels())
        admin.close()

    with_subscriber(scenario)


def test_malformed_messages_and_failing_receivers_do_not_stop_the_listener(
    with_subscriber, publisher, valkey
):
    async def scenario(subscriber: EventSubscriber) -> None:
        admin = redis.Redis.from_url(valkey.url(3))
        heard: list[Heard] = []

        def fails(_: Heard) -> None:
            raise RuntimeError("a receiver's own mistake")

        await subscriber.watch("job:7", fails)
        await subscriber.watch("job:7", heard.append)
        for junk in (b"{", b"\xff\xfe", b"[]", b"null", b'{"type": "job"}', b"[" * 100_000):
            admin.publish("t:events:job:7", junk)
        await asyncio.to_thread(publisher.publish, [change(version=5)])
        await until(lambda: heard)
        assert [h.version for h in heard] == [5]
        admin.close()

    with_subscriber(scenario)


def test_a_killed_connection_is_replaced_and_listens_to_the_same_topics(
    with_subscriber, publisher, valkey
):
    async def scenario(subscriber: EventSubscriber) -> None:
        admin = redis.Redis.from_url(valkey.url(3))
        heard: list[Heard] = []
        await subscriber.watch("job:7", heard.append)
        for version in range(1, 4):
            admin.client_kill_filter(_type="pubsub")
            await until(lambda: admin.pubsub_numsub("t:events:job:7")[0][1] == 1)
            await asyncio.to_thread(publisher.publish, [change(version=version)])
            await until(lambda n=version: len(heard) == n)
        admin.close()

    with_subscriber(scenario)


def test_an_idle_connection_outlives_many_health_checks(with_subscriber, publisher, valkey):
    async def scenario(subscriber: EventSubscriber) -> None:
        admin = redis.Redis.from_url(valkey.url(3))
        heard: list[Heard] = []
        await subscriber.watch("job:7", heard.append)
        before = {c["id"] for c in admin.client_list(_type="pubsub")}
        await asyncio.sleep(2.5)
        assert {c["id"] for c in admin.client_list(_type="pubsub")} == before
        await asyncio.to_thread(publisher.publish, [change()])
        await until(lambda: heard)
        admin.close()

    with_subscriber(scenario, health_check_s=0.25)


def test_a_server_that_is_gone_for_a_while_is_found_again():
    with running_valkey() as server:

        async def scenario() -> None:
            subscriber = EventSubscriber(server.url(3), "t")
            publisher = EventPublisher(server.url(3), "t")
            subscriber.start()
            heard: list[Heard] = []
            await subscriber.watch("job:7", heard.append)
            await asyncio.to_thread(server.stop)
            began = time.monotonic()
            assert not await subscriber.watch("job:8", heard.append, timeout_s=0.2)
            await asyncio.to_thread(publisher.publish, [change()])
            assert time.monotonic() - began < 2
            await asyncio.sleep(1)
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(6):
                while {h.id for h in heard} != {7, 8}:
                    await asyncio.to_thread(publisher.publish, [change(7), change(8)])
                    await asyncio.sleep(0.1)
            await subscriber.stop()
            publisher.close()

        asyncio.run(scenario())


def test_publishing_to_a_frozen_server_costs_a_second_once_not_every_time():
    with running_valkey() as server:
        publisher = EventPublisher(server.url(3), "t")
        publisher.publish([change()])
        server.pause()
        try:
            began = time.monotonic()
            for version in range(50):
                publisher.publish([change(version=version)])
            assert time.monotonic() - began < 1.9
        finally:
            server.cont()
        publisher.close()


def test_publishing_to_nowhere_neither_raises_nor_waits():
    publisher = EventPublisher(f"redis://127.0.0.1:{free_port()}/0", "t")
    began = time.monotonic()
    publisher.publish([change()])
    assert publisher.publish_preview(1, b"x") == 0
    assert time.monotonic() - began < 1
    publisher.close()


def test_preview_frames_arrive_whole_and_their_receivers_are_counted(with_subscriber, publisher):
    async def scenario(subscriber: EventSubscriber) -> None:
        frames: list[bytes] = []
        frame = bytes(range(256))
        assert await asyncio.to_thread(publisher.publish_preview, 7, frame) == 0
        deliver = frames.append
        await subscriber.watch_previews(7, deliver)
        assert await asyncio.to_thread(publisher.publish_preview, 7, frame) == 1
        await until(lambda: frames)
        assert frames == [frame]
        await subscriber.unwatch_previews(7, deliver)

    with_subscriber(scenario)


def test_a_publisher_goes_on_after_fork_and_after_its_connection_was_killed(
    publisher, valkey, with_subscriber
):
    async def scenario(subscriber: EventSubscriber) -> None:
        heard: list[Heard] = []
        await subscriber.watch("job:7", heard.append)
        await asyncio.to_thread(publisher.publish, [change(version=1)])
        publisher.after_fork()
        admin = redis.Redis.from_url(valkey.url(3))
        await asyncio.to_thread(publisher.publish, [change(version=2)])
        admin.client_kill_filter(_type="normal", skipme=True)
        await asyncio.to_thread(publisher.publish, [change(version=3)])
        await until(lambda: len(heard) == 3)
        admin.close()

    with_subscriber(scenario)
