"""Reach users by mail: text and HTML, with the picture in it, and a way out in one click."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import structlog
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from genonaut.api.config import Settings
from genonaut.clients import mail
from genonaut.clients.mail import MailSession, Relay
from genonaut.core.errors import GenonautError
from genonaut.core.text import one_line
from genonaut.domain import signing
from genonaut.domain.addresses import Endpoint
from genonaut.domain.parcels import Parcel
from genonaut.worker.channel import Post

log = structlog.get_logger(__name__)

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=select_autoescape(("html",)),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_PICTURE = "picture"


class Email:
    """Hand mail to the operator's relay, once its receiver has followed a link."""

    name = "email"
    has_addresses = True
    is_relayed = True
    is_verified_by_answer = False

    def why_not(self, settings: Settings) -> str | None:
        """Say which settings are missing."""
        if settings.smtp_host is None or settings.mail_from is None:
            return "mail is not set up here: SMTP_HOST and MAIL_FROM are needed"
        return None

    def per_minute(self, settings: Settings) -> int | None:
        """Give the operator's limit."""
        return settings.mail_per_minute

    def check(self, address: str, _: Settings) -> Endpoint:
        """Refuse what is no mail address."""
        usual = mail.check_address(address)
        return Endpoint(self.name, usual, self.name, is_relayed=True, takes_digest=True)

    @contextmanager
    def open(self, post: Post) -> Iterator["MailSender"]:
        """Begin to send; one connection serves all that is sent in the block."""
        settings = post.settings
        relay = Relay(
            host=settings.smtp_host or "",
            port=settings.smtp_port,
            security=settings.smtp_security,
            user=settings.smtp_user,
            password=settings.smtp_password,
            timeout_s=settings.delivery_timeout_s,
        )
        with MailSession(relay) as session:
            yield MailSender(post, session)


class MailSender:
    """Write and send one mail after the other."""

    def __init__(self, post: Post, session: MailSession) -> None:
        self._post = post
        self._session = session
        self._sender = post.settings.mail_from or ""

    def send(self, parcel: Parcel, now: datetime) -> None:
        """Send a mail."""
        message = self.write(parcel, now)
        self._session.send(self._sender, parcel.address.address, message.as_bytes())

    def write(self, parcel: Parcel, now: datetime) -> EmailMessage:
        """Write a mail; written again, it has the same Message-ID."""
        base = self._post.settings.base_url
        unsubscribe = _link(
            base, "unsubscribe", signing.unsubscribe_token(self._post.key, parcel.address)
        )
        picture = self._picture(parcel)
        values: dict[str, Any] = {
            "base_url": base,
            "username": parcel.username,
            "notifications": parcel.notifications,
            "total": parcel.total,
            "unsubscribe": unsubscribe,
            "verify": None,
            "picture": f"cid:{_PICTURE}" if picture else None,
        }
        purpose = parcel.delivery.purpose
        if purpose == "verification":
            token = signing.verify_token(self._post.key, parcel.address, now)
            values["verify"] = _link(base, "verify-email", token)
        message = EmailMessage(policy=SMTP)
        message["From"] = Address("Genonaut", addr_spec=self._sender)
        message["To"] = Address(addr_spec=parcel.address.address)
        message["Subject"] = subject(parcel)
        message["Date"] = format_datetime(parcel.delivery.created_at)
        domain = self._sender.rpartition("@")[2]
        message["Message-ID"] = f"<{parcel.delivery.message_id}@{domain}>"
        message["Auto-Submitted"] = "auto-generated"
        if purpose != "verification":
            message["List-Unsubscribe"] = f"<{unsubscribe}>"
            message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        message.set_content(_TEMPLATES.get_template(f"{purpose}.txt").render(values))
        html = _TEMPLATES.get_template(f"{purpose}.html").render(values)
        message.add_alternative(html, subtype="html")
        if picture:
            body = message.get_body(("html",))
            if isinstance(body, EmailMessage):
                data, kind = picture
                body.add_related(data, "image", kind, cid=f"<{_PICTURE}>", disposition="inline")
        return message

    def _picture(self, parcel: Parcel) -> tuple[bytes, str] | None:
        """Read the thumbnail; a mail without it is still a mail."""
        if parcel.picture is None:
            return None
        key = parcel.picture.key
        try:
            return self._post.storage.read(key), key.rpartition(".")[2].replace("jpg", "jpeg")
        except GenonautError as error:
            log.warning("thumbnail_not_read", reason=str(error)[:200])
            return None


def subject(parcel: Parcel) -> str:
    """Give the subject of a mail: one line, whatever the title holds."""
    match parcel.delivery.purpose:
        case "verification":
            return "Confirm that Genonaut may write to you"
        case "test":
            return "A test from Genonaut"
        case "digest":
            news = "notification" if parcel.total == 1 else "notifications"
            return f"Your day on Genonaut: {parcel.total} {news}"
        case _:
            return one_line(parcel.notifications[0].title, longest=200)


def _link(base: str, page: str, token: str) -> str:
    return f"{base}/{page}?token={token}"


CHANNEL = Email()
