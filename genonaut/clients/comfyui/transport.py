"""Speak HTTP with ComfyUI: bounded in size and time, every oddity turned into our errors."""

import json
import ssl
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx

from genonaut.core.errors import BackendUnavailableError, InvalidInputError

MAX_JSON_BYTES = 64 * 1024 * 1024
"""``/queue`` holds whole graphs and a history entry may hold a long text."""

_WHOLE_ANSWER_FACTOR = 6
"""A whole answer may take so many read timeouts, however steadily it trickles."""

_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
)


class BrokenOffError(BackendUnavailableError):
    """No whole answer came, though ComfyUI may have got the request."""


class AnswerTooLargeError(BrokenOffError):
    """The answer is longer than asked for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Hold a complete answer."""

    status: int
    body: bytes

    def json(self) -> Any:
        """Decode the body.

        Raises: BackendUnavailableError: it is not JSON, such as a proxy's error page.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise BackendUnavailableError("ComfyUI answered with something else than JSON") from (
                error
            )


@lru_cache(maxsize=1)
def tls() -> ssl.SSLContext:
    """Give the process's TLS settings; loading the certificates anew takes 20 ms."""
    return httpx.create_ssl_context(trust_env=False)


def parse_base_url(base_url: str) -> httpx.URL:
    """Check a server's address; it may carry a path prefix and a login.

    Raises: InvalidInputError: ``field`` is ``comfyui_url``.
    """
    try:
        url = httpx.URL(base_url.strip().rstrip("/"))
    except httpx.InvalidURL as error:
        raise InvalidInputError("not a valid address", field="comfyui_url") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise InvalidInputError("must be an http:// or https:// address", field="comfyui_url")
    return url


def websocket_url(base: httpx.URL, client_id: str) -> str:
    """Give the address of the WebSocket beside a base URL."""
    scheme = "wss" if base.scheme == "https" else "ws"
    path = base.path.rstrip("/") + "/ws"
    url = base.copy_with(scheme=scheme, path=path, params={"clientId": client_id})
    if base.userinfo and b":" not in base.userinfo:  # websockets refuses a login of one part
        url = url.copy_with(userinfo=base.userinfo + b":")
    return str(url)


def without_login(url: str) -> str:
    """Give an address as it may be shown."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


class Transport:
    """Send requests below one base URL: no redirects, no proxies of the environment."""

    def __init__(self, base: httpx.URL, *, connect_timeout_s: float, read_timeout_s: float) -> None:
        self._whole_answer_s = read_timeout_s * _WHOLE_ANSWER_FACTOR
        self._http = httpx.Client(
            base_url=base,
            timeout=httpx.Timeout(read_timeout_s, connect=connect_timeout_s),
            verify=tls(),
            trust_env=False,
            follow_redirects=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(
        self, path: str, *, params: dict[str, str] | None = None, max_bytes: int = MAX_JSON_BYTES
    ) -> Answer:
        """Read; see :meth:`post` for what is raised."""
        return self._exchange(self._http.build_request("GET", path, params=params), max_bytes)

    def get_json(self, path: str) -> Any:
        """Read JSON.

        Raises: BackendUnavailableError: no answer, not a 200, or not JSON.
        """
        answer = self.get(path)
        if answer.status != httpx.codes.OK:
            raise BackendUnavailableError(f"ComfyUI answered {answer.status} to GET {path}")
        return answer.json()

    def post(self, path: str, body: dict[str, Any]) -> Answer:
        """Send JSON.

        Raises:
            BrokenOffError: no whole answer, but the request may have arrived.
            BackendUnavailableError: no answer, and the request cannot have arrived.
        """
        content = json.dumps(body, allow_nan=False).encode()
        headers = {"content-type": "application/json"}
        request = self._http.build_request("POST", path, content=content, headers=headers)
        return self._exchange(request, MAX_JSON_BYTES)

    def _exchange(self, request: httpx.Request, max_bytes: int) -> Answer:
        deadline = time.monotonic() + self._whole_answer_s
        body = bytearray()
        try:
            response = self._http.send(request, stream=True)
            try:
                expected = int(response.headers.get("content-length", "0"))
                for chunk in response.iter_bytes() if expected <= max_bytes else ():
                    body += chunk
                    if len(body) > max_bytes or time.monotonic() > deadline:
                        break
            finally:
                response.close()
        except _NEVER_SENT as error:
            raise BackendUnavailableError(f"ComfyUI does not answer ({_name(error)})") from error
        except httpx.HTTPError as error:
            raise BrokenOffError(f"ComfyUI broke off its answer ({_name(error)})") from error
        if max(expected, len(body)) > max_bytes:
            raise AnswerTooLargeError(f"ComfyUI's answer is larger than {max_bytes} bytes")
        if time.monotonic() > deadline:
            raise BrokenOffError("ComfyUI's answer came too slowly")
        return Answer(response.status_code, bytes(body))


def _name(error: Exception) -> str:
    return type(error).__name__
