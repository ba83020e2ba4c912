"""Ask for what the plan says through the API, as its users do, and note what was answered.

A request that gets no answer, or one that promises nothing, is sent again under the same
Idempotency-Key until it is answered: what the API took is then known for each.
"""

import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.reliability.soak.plan import OPERATOR, SCHEDULES, Act, Plan

PATIENCE_S = 120.0
"""A request is answered by then, whatever is broken."""
PAUSE_S = 2.0
"""Between two requests, in the end."""
HANDS = 32

_JOBS = "/api/v1/generation-jobs"
_ADMIN = "/api/v1/admin"


@dataclass(slots=True)
class Order:
    """What was asked for, and what was answered.

    ``row_id`` is None for what was refused, such as a repetition of what has not ended.
    """

    act: Act
    row_id: int | None
    is_cancelled: bool = False
    """A cancel of it was accepted."""


@dataclass(slots=True)
class Asked:
    """All that was asked for, by number, and what went wrong about it."""

    orders: dict[int, Order] = field(default_factory=dict)
    first_due: dict[str, str] = field(default_factory=dict)
    """When each schedule was due first, as its maker was told."""
    complaints: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)

    def of(self, what: str) -> list[Order]:
        """Give the orders of jobs, or of runs, that were taken."""
        verbs = {f"submit_{what}", f"start_{what}", f"retry_{what}"}
        return [
            order
            for order in self.orders.values()
            if order.act.verb in verbs and order.row_id is not None
        ]


class Refused(Exception):  # noqa: N818 - an answer, not a mistake
    """The API said no, for good."""


class Desk:
    """Send the requests of a plan when their time comes."""

    def __init__(self, url: str, tokens: Mapping[str, str], plan: Plan) -> None:
        self.asked = Asked()
        self._plan = plan
        self._lock = threading.Lock()
        self._hands = ThreadPoolExecutor(HANDS, thread_name_prefix="desk")
        self._made: dict[int, Future[int | None]] = {
            act.number: Future() for act in plan.acts if act.number
        }
        self._open: list[Future[None]] = []
        self._clients = {
            name: httpx.Client(
                base_url=url,
                headers={"Authorization": f"Bearer {token}"},
                timeout=10,
                trust_env=False,
            )
            for name, token in tokens.items()
        }

    def close(self) -> None:
        """Close the connections."""
        self._hands.shutdown(cancel_futures=True)
        for client in self._clients.values():
            client.close()

    def make_schedules(self) -> None:
        """Have everything tick that ticks by itself."""
        for name, terms in SCHEDULES.items():
            answer = self._clients[OPERATOR].post(
                f"{_ADMIN}/schedules", json={"name": name, **terms}
            )
            assert answer.status_code == 201, answer.text
            self.asked.first_due[name] = answer.json()["next_due_at"]

    def open(self) -> None:
        """Begin to send; returns at once."""
        threading.Thread(target=self._send_all, name="plan", daemon=True).start()

    def open_requests(self) -> int:
        """Count the requests of the plan that were not answered yet."""
        return len(self._plan.acts) - sum(each.done() for each in list(self._open))

    def _send_all(self) -> None:
        began = time.monotonic()
        for act in self._plan.acts:
            time.sleep(max(0.0, began + act.at_s - time.monotonic()))
            self._open.append(self._hands.submit(self._do, act))

    def _do(self, act: Act) -> None:
        try:
            if act.verb in {"cancel_job", "cancel_run"}:
                self._cancel(act)
            else:
                self._make(act)
        except Exception as error:  # noqa: BLE001 - of any kind: it is a line of the report
            self._complain(f"{act.verb} {act.number or act.of}: {type(error).__name__}: {error}")
        finally:
            if act.number and not self._made[act.number].done():
                self._made[act.number].set_result(None)

    def _make(self, act: Act) -> None:
        path = self._path(act)
        if path is None:
            return

        def send() -> int | None:
            try:
                return int(self._post(act, path, *_ANSWERS[act.verb])["id"])
            except Refused:
                return None

        with ThreadPoolExecutor(act.times) as hands:
            sent = [hands.submit(send) for _ in range(act.times)]
        # A refusal is not remembered under the key: of two, one may be refused and one taken.
        ids = sorted({each.result() for each in sent} - {None})
        if len(ids) > 1:
            self._complain(f"{act.verb} {act.number} was answered with {ids}")
        row_id = ids[0] if ids else None
        with self._lock:
            self.asked.orders[act.number] = Order(act, row_id)
        self._made[act.number].set_result(row_id)

    def _cancel(self, act: Act) -> None:
        path = self._path(act)
        if path is None:
            return
        try:
            self._post(act, path, *_ANSWERS[act.verb])
        except Refused:
            return
        with self._lock:
            self.asked.orders[act.of].is_cancelled = True

    def _path(self, act: Act) -> str | None:
        """Give the address; None if what it is about was never made."""
        if act.verb == "submit_job":
            return _JOBS
        if act.verb == "start_run":
            return f"{_ADMIN}/tasks/{act.task}/runs"
        row_id = self._made[act.of].result(PATIENCE_S)
        if row_id is None:
            return None
        deed, _, what = act.verb.partition("_")
        return f"{_JOBS}/{row_id}/{deed}" if what == "job" else f"{_ADMIN}/runs/{row_id}/{deed}"

    def _post(self, act: Act, path: str, taken: set[int], refused: set[int]) -> dict[str, Any]:
        """Send until it is answered.

        Raises: Refused: for good. TimeoutError: it was not. ValueError: with what nobody expects.
        """
        headers = {"Idempotency-Key": f"soak-{act.number}"} if act.number else {}
        ends_at = time.monotonic() + PATIENCE_S
        pause_s = 0.0
        while time.monotonic() < ends_at:
            time.sleep(pause_s)
            pause_s = min(PAUSE_S, 2 * pause_s or PAUSE_S / 8)
            try:
                answer = self._clients[act.user].post(path, json=act.body, headers=headers)
            except httpx.TransportError as error:
                self._count(type(error).__name__)
                continue
            self._count(str(answer.status_code))
            said: dict[str, Any] = answer.json()
            if answer.status_code in taken:
                return said
            in_flight = said.get("code") == "request_in_flight"
            if answer.status_code == 503 or in_flight:
                continue
            if answer.status_code in refused:
                raise Refused(answer.text)
            raise ValueError(f"{answer.status_code} {answer.text}")
        raise TimeoutError(f"not answered within {PATIENCE_S:.0f} s")

    def _count(self, answer: str) -> None:
        with self._lock:
            self.asked.answers[answer] += 1

    def _complain(self, line: str) -> None:
        with self._lock:
            self.asked.complaints.append(line)


_ANSWERS: dict[str, tuple[set[int], set[int]]] = {
    "submit_job": ({202}, set()),
    "cancel_job": ({200, 202}, {409}),
    "retry_job": ({202}, {409}),
    "start_run": ({200, 202}, {409}),
    "cancel_run": ({200, 202}, {409}),
    "retry_run": ({200, 202}, {409}),
}
"""With what each is taken and refused; a run with 200: an unfinished one stands for it."""
