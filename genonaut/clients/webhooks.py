"""Post signed messages to addresses that users gave, as Standard Webhooks says.

See https://www.standardwebhooks.com. The connection is made to an address that was judged
(``clients/guard.py``), redirects are not followed, and everything together has one deadline.
"""

import asyncio
import base64
import hashlib
import hmac
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

import httpx

from genonaut import __version__
from genonaut.clients import guard
from genonaut.clients.guard import Allowed, Resolve
from genonaut.core.errors import DeliveryFailedError, InvalidInputError

AGENT = f"genonaut/{__version__}"
MAX_URL = 2000
MAX_ANSWER = 4096
"""So much of an answer is read at most, and only where it is asked for."""
LONGEST_RETRY_AFTER_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver answered; ``body`` is empty unless it was asked for."""

    status: int
    retry_after_s: float | None
    body: bytes


def check_url(text: str) -> httpx.URL:
    """Read the URL of a webhook, in its usual form.

    Raises:
        InvalidInputError: it is not http or https, names no host, carries a login, or is too long,
            as given or in its usual form, where a letter beyond ASCII takes six characters or more.
    """
    if len(text) > MAX_URL or any(ord(char) <= 32 or ord(char) == 127 for char in text):
        raise InvalidInputError(
            f"must be a URL of at most {MAX_URL} characters, without spaces", field="address"
        )
    try:
        url = httpx.URL(text)
        port = url.port
        host = url.raw_host.decode("ascii")
        seen_otherwise = urlsplit(str(url)).hostname or ""
    except (httpx.InvalidURL, ValueError) as error:
        raise InvalidInputError(f"is no URL: {error}", field="address") from error
    if (
        url.scheme not in {"http", "https"}
        or not host
        or (port is not None and not 0 < port < 65536)
    ):
        raise InvalidInputError("must begin with https:// or http:// and a host", field="address")
    if url.userinfo or url.fragment or "%" in host or seen_otherwise != host.strip("[]").lower():
        raise InvalidInputError("must not carry a login or a fragment", field="address")
    if len(str(url)) > MAX_URL:
        raise InvalidInputError(
            f"takes {len(str(url))} characters once encoded; {MAX_URL} are allowed", field="address"
        )
    return url


def signed(
    secrets: Sequence[str], message_id: str, moment: datetime, body: bytes
) -> dict[str, str]:
    """Give the headers that name and sign a message, with each of the secrets that count."""
    timestamp = str(int(moment.timestamp()))
    content = b".".join((message_id.encode(), timestamp.encode(), body))
    signatures = [
        base64.b64encode(hmac.new(_raw(secret), content, hashlib.sha256).digest()).decode()
        for secret in secrets
    ]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _raw(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix("whsec_"))


def post(
    url: httpx.URL,
    body: bytes,
    headers: dict[str, str],
    *,
    allowed: Allowed,
    timeout_s: float,
    read_body: bool = False,
    resolve: Resolve = guard.system_resolve,
) -> Answer:
    """Post JSON and give the answer; looking up, connecting and answering take one deadline.

    Of several addresses that of the first that takes the connection counts; each has a fair share.

    Raises:
        DeliveryRefusedError: the host may not be reached.
        DeliveryFailedError: it does not answer, or not in time.
    """
    ends_at = time.monotonic() + timeout_s
    host = url.raw_host.decode("ascii").strip("[]")
    port = url.port or (443 if url.scheme == "https" else 80)
    addresses = guard.permitted(host, port, allowed, timeout_s=timeout_s, resolve=resolve)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": AGENT,
        "Accept-Encoding": "identity",
        **headers,
    }
    try:
        return asyncio.run(
            _post_within(
                url, addresses, body, headers, ends_at - time.monotonic(), read_body=read_body
            )
        )
    except TimeoutError as error:
        raise DeliveryFailedError(
            f"{host} did not answer within {timeout_s:g} s", code="timed_out"
        ) from error
    except (httpx.HTTPError, OSError) as error:
        raise DeliveryFailedError(
            f"{host} cannot be reached: {type(error).__name__}", code="unreachable"
        ) from error


async def _post_within(
    url: httpx.URL,
    addresses: Sequence[str],
    body: bytes,
    headers: dict[str, str],
    timeout_s: float,
    *,
    read_body: bool,
) -> Answer:
    timeout_s = max(0.01, timeout_s)
    ends_at = time.monotonic() + timeout_s
    async with (
        asyncio.timeout(timeout_s),
        httpx.AsyncClient(verify=_trust(), trust_env=False, follow_redirects=False) as client,
    ):
        for tried, address in enumerate(addresses[:-1]):
            limits = _limits(ends_at, addresses=len(addresses) - tried)
            try:
                return await _post_to(
                    client, url, address, body, headers, limits, read_body=read_body
                )
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        limits = _limits(ends_at, addresses=1)
        return await _post_to(
            client, url, addresses[-1], body, headers, limits, read_body=read_body
        )


def _limits(ends_at: float, *, addresses: int) -> httpx.Timeout:
    """Share out what is left: an address that takes no connection leaves as much to each other."""
    # httpx's own limits, which count each step alone, come first: it then closes what it opened.
    left_s = max(0.01, 0.9 * (ends_at - time.monotonic()))
    return httpx.Timeout(left_s, connect=left_s / addresses)


async def _post_to(
    client: httpx.AsyncClient,
    url: httpx.URL,
    address: str,
    body: bytes,
    headers: dict[str, str],
    limits: httpx.Timeout,
    *,
    read_body: bool,
) -> Answer:
    """Post to an address; the name stays that of the URL, for the Host and the certificate."""
    name = url.raw_host.decode("ascii")
    extensions = {} if _is_literal(name) else {"sni_hostname": name}
    request = client.build_request(
        "POST",
        url.copy_with(host=address),
        content=body,
        headers={**headers, "Host": url.netloc.decode("ascii")},
        extensions=extensions,
        timeout=limits,
    )
    answer = await client.send(request, stream=True)
    try:
        content = await _beginning(answer) if read_body else b""
    finally:
        await answer.aclose()
    return Answer(answer.status_code, _retry_after_s(answer), content)


async def _beginning(answer: httpx.Response) -> bytes:
    content = b""
    async for part in answer.aiter_raw():
        content += part
        if len(content) >= MAX_ANSWER:
            break
    return content[:MAX_ANSWER]


def _retry_after_s(answer: httpx.Response) -> float | None:
    given = answer.headers.get("Retry-After", "").strip()
    if given.isascii() and given.isdigit():
        return min(float(given), LONGEST_RETRY_AFTER_S) if len(given) < 10 else None
    try:
        moment = parsedate_to_datetime(given)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    wait_s = (moment - datetime.now(UTC)).total_seconds()
    return min(max(0.0, wait_s), LONGEST_RETRY_AFTER_S)


def _is_literal(host: str) -> bool:
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1)
def _trust() -> ssl.SSLContext:
    """Load the certificates that are trusted, once: it takes longer than a request."""
    return httpx.create_ssl_context(trust_env=False)
