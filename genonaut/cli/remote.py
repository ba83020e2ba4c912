"""Speak with the API as a user does."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from genonaut import __version__
from genonaut.api.config import BUILT_IN, Settings
from genonaut.core.errors import GenonautError
from genonaut.core.log import configure_logging

FINAL = frozenset({"completed", "failed", "cancelled", "skipped"})
AGENT = f"genonaut-cli/{__version__}"
"""How the API knows what was asked for from a terminal."""
_POLL_S = 1.0
_PATIENCE_S = 60.0  # an API that is restarted is back by then


@dataclass(frozen=True, slots=True)
class Kind:
    """What can be watched: where it is read, and where its changes are heard."""

    name: str
    path: str
    socket: str
    may_have_no_end: bool = False


JOB = Kind("job", "/generation-jobs", "/ws/jobs")
RUN = Kind("run", "/admin/runs", "/ws/runs", may_have_no_end=True)


class ApiError(GenonautError):
    """The API refused, or does not answer; the message says why."""

    code = "api_error"


class ApiNotFoundError(ApiError):
    """There is no such thing."""

    code = "not_found"


class ApiAwayError(ApiError):
    """The API does not answer."""

    code = "api_away"


def token_path(settings: Settings) -> str:
    """Say where ``genonaut up`` leaves the command line's own token."""
    return str(settings.environment_dir / "cli-token")


def own_token(settings: Settings) -> str:
    """Give the command line's token.

    Raises: ApiError: there is none; says how to make one.
    """
    if settings.genonaut_token:
        return settings.genonaut_token
    path = settings.environment_dir / "cli-token"
    if settings.app_env in BUILT_IN and path.is_file():
        return path.read_text().strip()
    raise ApiError(
        "no token: set GENONAUT_TOKEN (make one with: genonaut tokens create --user NAME), "
        f"or start the environment with: genonaut up --env {settings.app_env}"
    )


class Api:
    """A signed-in client of the API.

    Raises: ApiError: ``base_url`` is no URL.
    """

    def __init__(self, base_url: str, token: str, *, start_with: str) -> None:
        self._base_url = base_url
        self._start_with = start_with
        self._headers = {"Authorization": f"Bearer {token}", "User-Agent": AGENT}
        try:
            self._http = httpx.Client(
                base_url=f"{base_url}/api/v1", headers=self._headers, timeout=30, trust_env=False
            )
        except httpx.InvalidURL as error:
            raise ApiError(f"{base_url} is not a URL: {error}") from error

    @classmethod
    def of(cls, settings: Settings, url: str | None = None) -> Self:
        """Make the client for the environment's own API, or the one at ``url``."""
        configure_logging("WARNING")
        return cls(
            (url or settings.base_url).rstrip("/"),
            own_token(settings),
            start_with=f"genonaut up --env {settings.app_env}",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Make a request; give the JSON of the answer, None if it is empty.

        Raises: ApiError: the answer is a problem, or there is none.
        """
        answer = self._request(method, path, **options)
        return answer.json() if answer.content else None

    def pages(self, path: str, params: dict[str, Any], *, limit: int) -> Iterator[dict[str, Any]]:
        """Read a list page by page, up to ``limit`` rows."""
        params = {**params, "limit": min(limit, 100)}
        while limit > 0:
            answer = self.call("GET", path, params=params)
            yield from answer["items"][:limit]
            limit -= len(answer["items"])
            cursor = answer.get("next_cursor")
            if not cursor:
                return
            params["cursor"] = cursor

    def watch(self, row_id: int, kind: Kind = JOB) -> Iterator[dict[str, Any]]:
        """Give a job's or run's rows as they change, to its end.

        The socket tells at once; while there is none the row is read every second. An API that
        is away for a moment, as in a restart, is waited for.
        """
        answered = time.monotonic()
        while True:
            try:
                for row in self._listen(row_id, kind):
                    yield row
                    if row["status"] in FINAL:
                        return
            except (WebSocketException, OSError):
                pass
            try:
                row = self.call("GET", f"{kind.path}/{row_id}")
            except ApiAwayError:
                if time.monotonic() - answered > _PATIENCE_S:
                    raise
            else:
                answered = time.monotonic()
                yield row
                if row["status"] in FINAL:
                    return
            time.sleep(_POLL_S)

    def _listen(self, row_id: int, kind: Kind) -> Iterator[dict[str, Any]]:
        parts = urlsplit(self._base_url)
        scheme = "wss" if parts.scheme == "https" else "ws"
        url = f"{scheme}://{parts.netloc}{parts.path}{kind.socket}/{row_id}"
        headers = {"Authorization": self._headers["Authorization"]}
        with connect(
            url,
            additional_headers=headers,
            user_agent_header=AGENT,
            proxy=None,
            open_timeout=5,
        ) as socket:
            for text in socket:
                message = json.loads(text)
                if message.get("type") in {"snapshot", kind.name} and "status" in message["data"]:
                    yield message["data"]

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise ApiAwayError(
                f"the API at {self._base_url} does not answer; start it with: {self._start_with}"
            ) from error
        except UnicodeEncodeError as error:
            raise ApiError("what is to be sent is not UTF-8") from error
        except ValueError as error:  # of a number that JSON has no words for
            raise ApiError(f"what is to be sent is not JSON: {error}") from error
        if answer.is_error:
            is_missing = answer.status_code == httpx.codes.NOT_FOUND
            raise (ApiNotFoundError if is_missing else ApiError)(_problem(answer))
        return answer


def _problem(answer: httpx.Response) -> str:
    try:
        problem = answer.json()
        detail = str(problem.get("detail") or problem.get("title"))
        fields = [_field(error) for error in problem.get("errors") or []]
    except (ValueError, AttributeError):
        return f"the API answered {answer.status_code}"
    return "; ".join(fields) or detail


def _field(error: dict[str, str]) -> str:
    [where] = {*error.values()} - {error["detail"]} or {""}
    name = where.removeprefix("#/").replace("/", ".")
    is_named = not name or error["detail"].startswith(f"{name}: ")
    return error["detail"] if is_named else f"{name}: {error['detail']}"
