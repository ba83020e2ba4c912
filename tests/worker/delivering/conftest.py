"""Deliver messages in this process, to receivers that tests look into."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from genonaut.api.config import load_settings
from genonaut.db.models import NotificationAddress, NotificationDelivery, User
from genonaut.worker import delivering
from genonaut.worker.services import Services
from tests.support.sinks import HttpSink, MailSink, http_sink, mail_sink

SECRET_KEY = "k" * 40


@pytest.fixture
def mails() -> Iterator[MailSink]:
    with mail_sink() as opened:
        yield opened


@pytest.fixture
def hooks() -> Iterator[HttpSink]:
    with http_sink() as opened:
        yield opened


@pytest.fixture
def serve(task_services: Services) -> Callable[..., Services]:
    """Give services that deliver, with further settings."""

    def make(**overrides: Any) -> Services:
        old = task_services.settings.model_dump(exclude_unset=True)
        values = {
            "secret_key": SECRET_KEY,
            "webhook_allowed_networks": "127.0.0.0/8",
            "delivery_timeout_s": 2.0,
            "public_url": "https://pics.example.org",
            **overrides,
        }
        settings = load_settings(**{**old, **values})
        return Services(
            settings, task_services.database, task_services.events, task_services.storage
        )

    return make


@pytest.fixture
def services(serve: Callable[..., Services], mails: MailSink) -> Services:
    return serve(
        smtp_host="127.0.0.1",
        smtp_port=mails.port,
        smtp_security="none",
        mail_from="genonaut@example.org",
    )


@pytest.fixture
def hook_address(
    make_address: Callable[..., NotificationAddress], hooks: HttpSink
) -> Callable[..., NotificationAddress]:
    def make(user: User | None = None, **columns: Any) -> NotificationAddress:
        return make_address(user, "webhook", hooks.url, host="127.0.0.1", **columns)

    return make


@pytest.fixture
def deliver(
    services: Services, reload: Callable[..., NotificationDelivery]
) -> Callable[..., NotificationDelivery]:
    """Work on a message's lane as a worker would; give the row as it is then."""

    def go(row: NotificationDelivery, of: Services = services) -> NotificationDelivery:
        delivering.run(of, row.id, worker="worker-1")
        return reload(row)

    return go
