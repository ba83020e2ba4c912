"""Hand mail to a relay over SMTP, many messages over one connection."""

import re
import smtplib
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Self

from genonaut.core.errors import (
    ChannelAwayError,
    DeliveryFailedError,
    DeliveryRefusedError,
    InvalidInputError,
)

MAX_ADDRESS = 254
_TAKING_S = 60.0  # a run that delivers must end within three minutes
_TIMES_AS_LONG = 6
_TOO_LARGE = 552  # already in answer to MAIL, which tells the size

_LOCAL = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"(?P<local>{_LOCAL})@(?P<domain>{_LABEL}(?:\.{_LABEL})+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Relay:
    """Where mail is handed in, and how."""

    host: str
    port: int
    security: Literal["none", "starttls", "tls"]
    user: str | None = None
    password: str | None = None
    timeout_s: float = 10.0


def check_address(text: str) -> str:
    """Read a mail address, its domain in lower case.

    Raises: InvalidInputError: it is none, or one that we do not write to.
    """
    found = _ADDRESS.fullmatch(text.strip())
    if found is None or len(text) > MAX_ADDRESS or len(found["local"]) > 64:
        raise InvalidInputError("must be a mail address, such as ada@example.org", field="address")
    return f"{found['local']}@{found['domain'].lower()}"


class _PlainConnection(smtplib.SMTP):
    had_message = False
    """Whether the relay was last handed a message, and may have taken it."""

    def mail(self, sender: str, options: Sequence[str] = ()) -> tuple[int, bytes]:
        self.had_message = False
        return super().mail(sender, options)

    def data(self, msg: Any) -> tuple[int, bytes]:
        self.had_message = True
        # It looks for viruses and the like.
        self._wait_at_most(min(_TIMES_AS_LONG * self.timeout, _TAKING_S))
        try:
            return super().data(msg)
        finally:
            self._wait_at_most(self.timeout)

    def _wait_at_most(self, seconds: float) -> None:
        if self.sock is not None:  # it may have been closed meanwhile
            self.sock.settimeout(seconds)


class _TlsConnection(_PlainConnection, smtplib.SMTP_SSL):
    pass


class MailSession:
    """A connection to the relay; made by the first message, and again when it was lost."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._smtp: _PlainConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._smtp is not None:
            with suppress(smtplib.SMTPException, OSError):
                self._smtp.quit()
            self._smtp.close()
            self._smtp = None

    def send(self, sender: str, recipient: str, message: bytes) -> None:
        """Hand in one message; when the answer is lost, it may have been taken.

        Raises:
            DeliveryRefusedError: the relay refuses this recipient or message for good.
            DeliveryFailedError: it does so for now.
            ChannelAwayError: it takes nothing now, whoever the recipient is.
        """
        smtp = self._connected()
        try:
            smtp.sendmail(sender, [recipient], message)
        except smtplib.SMTPRecipientsRefused as error:
            code, words = error.recipients[recipient]
            raise self._judged(code, words, of="recipient", hide=recipient) from error
        except smtplib.SMTPSenderRefused as error:
            if error.smtp_code == _TOO_LARGE:
                raise self._judged(
                    error.smtp_code, error.smtp_error, of="message", hide=recipient
                ) from error
            self._drop()
            raise ChannelAwayError(f"the relay refuses us: {_told(error)}") from error
        except smtplib.SMTPDataError as error:
            raise self._judged(
                error.smtp_code, error.smtp_error, of="message", hide=recipient
            ) from error
        except (smtplib.SMTPException, OSError) as error:
            had_message = smtp.had_message
            self._drop()
            told = f"the relay was lost: {type(error).__name__}"
            if had_message:  # it may have taken it, and what counts no attempt is sent for days
                raise DeliveryFailedError(told) from error
            raise ChannelAwayError(told) from error

    def _judged(
        self, code: int, words: bytes | str, *, of: str, hide: str
    ) -> DeliveryRefusedError | DeliveryFailedError | ChannelAwayError:
        said = words.decode(errors="replace") if isinstance(words, bytes) else words
        # Relays repeat the address, and who reads why need not know it.
        said = re.sub(re.escape(hide), "…", said, flags=re.IGNORECASE)
        told = f"the relay refuses the {of}: {code} {said[:200]}"
        if code == 421:
            self._drop()
            return ChannelAwayError(told)
        if 400 <= code < 500:
            return DeliveryFailedError(told)
        return DeliveryRefusedError(told)

    def _connected(self) -> _PlainConnection:
        if self._smtp is None:
            try:
                self._smtp = self._connect()
            except (smtplib.SMTPException, OSError, ValueError) as error:
                raise ChannelAwayError(f"the relay does not let us in: {_told(error)}") from error
        return self._smtp

    def _connect(self) -> _PlainConnection:
        relay = self._relay
        name = socket.gethostname()  # the default asks the name service, which may take long
        smtp: _PlainConnection
        if relay.security == "tls":
            smtp = _TlsConnection(
                relay.host,
                relay.port,
                local_hostname=name,
                timeout=relay.timeout_s,
                context=ssl.create_default_context(),
            )
        else:
            smtp = _PlainConnection(relay.host, relay.port, name, timeout=relay.timeout_s)
        try:
            if relay.security == "starttls":
                smtp.starttls(context=ssl.create_default_context())
            if relay.user is not None:
                smtp.login(relay.user, relay.password or "")
        except BaseException:
            smtp.close()
            raise
        return smtp

    def _drop(self) -> None:
        if self._smtp is not None:
            self._smtp.close()
            self._smtp = None


def _told(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error
        words = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        return f"{error.smtp_code} {words[:200]}"
    return type(error).__name__
