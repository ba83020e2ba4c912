"""Reach users in the application: the notification's row and its live event are all it takes."""

from contextlib import AbstractContextManager
from typing import NoReturn

from genonaut.api.config import Settings
from genonaut.core.errors import InvalidInputError
from genonaut.domain.preferences import IN_APP
from genonaut.worker.channel import Post, Sender


class InApp:
    """Send nothing: whoever looks sees it."""

    name = IN_APP
    has_addresses = False
    is_relayed = False
    is_verified_by_answer = False

    def why_not(self, _: Settings) -> str | None:
        """Say that it can always be used."""
        return None

    def per_minute(self, _: Settings) -> int | None:
        """Say that there is no limit."""
        return None

    def check(self, address: str, settings: Settings) -> NoReturn:  # noqa: ARG002 - the protocol's
        """Refuse any address."""
        raise InvalidInputError("this channel takes no address", field="address")

    def open(self, post: Post) -> AbstractContextManager[Sender]:  # noqa: ARG002 - the protocol's
        """Refuse to send."""
        raise InvalidInputError("this channel sends nothing", field="channel")


CHANNEL = InApp()
