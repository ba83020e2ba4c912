"""The API as its users meet it: requests with a token, and WebSockets."""

import json
from typing import Any, Self

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.reliability.program import Program, until


class Api:
    """Speak with a running API as one user."""

    def __init__(self, program: Program, port: int, token: str) -> None:
        self.program = program
        self.port = port
        self.token = token
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=10,
            trust_env=False,
        )

    def wait_until_ready(self) -> None:
        """Wait until it answers."""
        until(lambda: self.http.get("/livez").status_code == 200, "the API answers")

    def submit(self, **body: Any) -> int:
        """Ask for pictures; give the job's id."""
        answer = self.http.post("/api/v1/generation-jobs", json=body)
        assert answer.status_code == 202, answer.text
        return int(answer.json()["id"])

    def cancel(self, job_id: int) -> int:
        """Ask for a job's end; give the status code."""
        return self.http.post(f"/api/v1/generation-jobs/{job_id}/cancel").status_code

    def socket(self, path: str, token: str | None = None) -> "Socket":
        """Open a WebSocket, as the user unless another ``token`` (or an empty one) is given."""
        return Socket(f"ws://127.0.0.1:{self.port}{path}", self.token if token is None else token)


class Socket:
    """A client of the live updates; a context manager."""

    def __init__(self, url: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._opening = connect(url, additional_headers=headers, proxy=None)
        self.received: list[dict[str, Any]] = []
        self.closed_with: int | None = None

    def __enter__(self) -> Self:
        self._connection = self._opening.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._opening.__exit__(None, None, None)

    def next(self, timeout_s: float = 10) -> dict[str, Any] | None:
        """Give the next message; None once the server has closed."""
        try:
            message = json.loads(self._connection.recv(timeout_s))
        except ConnectionClosed as closed:
            self.closed_with = closed.rcvd.code if closed.rcvd else 1006
            return None
        self.received.append(message)
        assert isinstance(message, dict)
        return message

    def read_to_end(self, timeout_s: float = 30) -> None:
        """Read until the server closes; fails when it is silent for so long."""
        while self.next(timeout_s) is not None:
            pass

    def of(self, kind: str, row_id: int, *, final: bool = False) -> list[dict[str, Any]]:
        """Give the messages about one row; with ``final`` only its last state."""
        return [
            message
            for message in self.received
            if (message["type"], message["id"]) == (kind, row_id)
            and (message["final"] or not final)
        ]

    def versions(self) -> list[int]:
        """Give the versions of the messages so far."""
        return [message["version"] for message in self.received]

    def statuses(self) -> list[str]:
        """Give the states told so far, without repetitions."""
        told = [message["data"]["status"] for message in self.received]
        return [status for n, status in enumerate(told) if n == 0 or told[n - 1] != status]
