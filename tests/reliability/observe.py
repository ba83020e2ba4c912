"""Listen in on Redis: what is told to everyone, and every command that names a channel."""

import json
import threading
from typing import Any, Self

import redis

from genonaut.domain.lifecycle import FINAL


class Heard:
    """Collect the events of the channels of a pattern; a context manager."""

    def __init__(self, client: redis.Redis, pattern: str) -> None:
        self._pubsub: Any = client.pubsub()  # type: ignore[no-untyped-call]
        self._pubsub.psubscribe(**{pattern: self._take})
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        self._pubsub.get_message(timeout=1)
        self._thread = self._pubsub.run_in_thread(sleep_time=0.05, daemon=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.stop()
        self._thread.join()

    def _take(self, message: dict[str, Any]) -> None:
        self._rows.append(json.loads(message["data"])["data"])

    def finals(self) -> dict[int, list[str]]:
        """Give the final states told so far, by job, in the order they came."""
        told: dict[int, list[str]] = {}
        for row in list(self._rows):
            if row["status"] in FINAL:
                told.setdefault(row["id"], []).append(row["status"])
        return told


class Monitor:
    """Collect the names of all channels that anybody uses; a context manager."""

    _ABOUT_CHANNELS = frozenset({"SUBSCRIBE", "PSUBSCRIBE", "PUBLISH"})

    def __init__(self, url: str) -> None:
        self.channels: set[str] = set()
        self._redis: Any = redis.Redis.from_url(url)
        self._ended = threading.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._redis.ping()  # the thread waits for a command
        self._thread.join()
        self._redis.close()

    def _run(self) -> None:
        with self._redis.monitor() as commands:
            self._started.set()
            while not self._ended.is_set():
                name, *words = commands.next_command()["command"].split(" ")
                if name.upper() in self._ABOUT_CHANNELS:
                    self.channels.update(words[:1] if name.upper() == "PUBLISH" else words)
