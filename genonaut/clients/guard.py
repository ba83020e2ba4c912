"""Keep requests that users cause from reaching what only we can reach.

A name is looked up once, every address it has is judged, and the connection is made to one of
those very addresses; a name that means something else a moment later changes nothing.
"""

import queue
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from genonaut.core.errors import DeliveryFailedError, DeliveryRefusedError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], list[str]]
"""Give the addresses of a name, as text; raises OSError when there are none."""

# The registries of IANA for special purposes, and what is no single public machine.
_REFUSED_4 = tuple(
    IPv4Network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    )
)
_UNICAST_6 = IPv6Network("2000::/3")
_REFUSED_6 = tuple(
    IPv6Network(text)
    # Teredo and 6to4 carry an IPv4 address to a relay of who knows whom.
    for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
_MAPPED_4 = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Allowed:
    """Networks that may be reached though they are not public."""

    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Allowed":
        """Read networks, as ``10.1.0.0/16``."""
        return cls(tuple(ip_network(text) for text in texts))

    def covers(self, address: Address) -> bool:
        """Whether the address is in one of them."""
        return any(
            address.version == network.version and address in network for network in self.networks
        )


def meant(address: Address) -> Address:
    """Give the IPv4 address that an IPv6 one stands for, if it does; else itself."""
    if isinstance(address, IPv6Address) and (address in _MAPPED_4 or address in _NAT64):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def is_public(address: Address) -> bool:
    """Whether an address is that of one machine on the public network.

    An IPv6 address that stands for an IPv4 one is judged as that one.
    """
    judged = meant(address)
    if isinstance(judged, IPv4Address):
        return not any(judged in network for network in _REFUSED_4)
    return judged in _UNICAST_6 and not any(judged in network for network in _REFUSED_6)


def system_resolve(host: str, port: int) -> list[str]:
    """Ask the system for the addresses of a name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def permitted(
    host: str, port: int, allowed: Allowed, *, timeout_s: float, resolve: Resolve = system_resolve
) -> list[str]:
    """Give the addresses of a host, if all of them may be reached.

    Raises:
        DeliveryRefusedError: one of them may not.
        DeliveryFailedError: the name has none, or nobody says in time.
    """
    addresses = _look_up(resolve, host, port, timeout_s)
    for address in map(ip_address, addresses):
        if not (is_public(address) or allowed.covers(meant(address))):
            raise DeliveryRefusedError(
                f"{host} is at an address that is not public", code="address_refused"
            )
    return addresses


def _look_up(resolve: Resolve, host: str, port: int, timeout_s: float) -> list[str]:
    """Look a name up, for so long at most: the system's own patience is longer and not settable."""
    answer: queue.SimpleQueue[list[str] | OSError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put(resolve(host, port))
        except (OSError, UnicodeError) as error:
            answer.put(error if isinstance(error, OSError) else OSError(str(error)))

    threading.Thread(target=ask, name="look-up", daemon=True).start()
    try:
        found = answer.get(timeout=timeout_s)
    except queue.Empty as error:
        raise DeliveryFailedError(f"{host} was not found in time", code="unresolved") from error
    if isinstance(found, OSError) or not found:
        raise DeliveryFailedError(f"{host} is not known", code="unresolved")
    return found
