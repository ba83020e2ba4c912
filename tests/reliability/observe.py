"""Listen in on Redis: what is told to everyone, and every command that names a channel."""

import json
import re
import socket
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

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What was told so far."""
        return list(self._rows)

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
    _WORD = re.compile(r'"((?:[^"\\]|\\.)*)"')

    def __init__(self, port: int) -> None:
        self.channels: set[str] = set()
        self._connection = socket.create_connection(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._connection.sendall(b"MONITOR\r\n")
        assert self._connection.recv(5) == b"+OK\r\n"
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        with self._connection.makefile(errors="replace") as lines:
            for line in lines:
                name, *words = self._WORD.findall(line) or [""]
                if name.upper() in self._ABOUT_CHANNELS:
                    self.channels.update(words[:1] if name.upper() == "PUBLISH" else words)
