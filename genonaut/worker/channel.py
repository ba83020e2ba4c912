"""Say what a channel is: one module in ``worker/channels``, found by discovery like a task."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from genonaut.api.config import Settings
from genonaut.clients.storage import Storage
from genonaut.domain.addresses import Endpoint
from genonaut.domain.parcels import Parcel
from genonaut.domain.signing import Key


@dataclass(frozen=True, slots=True)
class Post:
    """What a channel has to work with while it sends."""

    settings: Settings
    storage: Storage
    key: Key


class Sender(Protocol):
    """Send one message after the other."""

    def send(self, parcel: Parcel, now: datetime) -> None:
        """Send a message under its id; a check that is answered at once says so by returning.

        Raises:
            DeliveryRefusedError: the receiver will never take it.
            DeliveryFailedError: the receiver did not take it now.
            ChannelAwayError: the channel takes nothing now, whoever the receiver is.
        """
        ...


class Channel(Protocol):
    """A way to reach a user; a module's ``CHANNEL`` is one.

    ``is_relayed``: all of it goes through one server of ours, so that what is wrong there is wrong
    for everybody. ``is_verified_by_answer``: a check that was sent without error is a proof;
    otherwise its receiver must follow a link.
    """

    @property
    def name(self) -> str:
        """Its name, as preferences and addresses spell it."""
        ...

    @property
    def has_addresses(self) -> bool:
        """Whether it sends anything; else the row and its live event are all there is."""
        ...

    @property
    def is_relayed(self) -> bool:
        """Whether all goes through one server of ours."""
        ...

    @property
    def is_verified_by_answer(self) -> bool:
        """Whether a check that was sent without error proves the address."""
        ...

    def why_not(self, settings: Settings) -> str | None:
        """Say why it cannot be used here; None when it can."""
        ...

    def per_minute(self, settings: Settings) -> int | None:
        """Say how many messages it may send a minute; None for no limit."""
        ...

    def check(self, address: str, settings: Settings) -> Endpoint:
        """Find an address right and give its usual form; it may look names up.

        Raises: InvalidInputError: it is not; ``field`` is ``address``.
        """
        ...

    def open(self, post: Post) -> AbstractContextManager[Sender]:
        """Begin to send."""
        ...
