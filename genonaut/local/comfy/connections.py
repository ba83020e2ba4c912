"""Know the TCP connections behind the requests, so that a fault can reset one."""

import asyncio
import socket
import struct
from collections.abc import Mapping
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_by_peer: dict[tuple[str, int], asyncio.Transport] = {}


class TrackedProtocol(HttpToolsProtocol):
    """Speak HTTP as uvicorn does, and register the connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remember the transport by its peer; a socket keeps it after the upgrade."""
        for peer in [peer for peer, other in _by_peer.items() if other.is_closing()]:
            del _by_peer[peer]
        _by_peer[transport.get_extra_info("peername")[:2]] = transport
        super().connection_made(transport)


def reset(scope: Mapping[str, Any]) -> None:
    """Cut the connection of this request at once; what was not sent yet is lost."""
    transport = _by_peer.pop(tuple(scope["client"]), None)
    if transport is None:
        return
    raw = cast("socket.socket", transport.get_extra_info("socket"))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
