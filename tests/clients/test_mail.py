"""Mail is handed to a real relay, and what it answers is taken for what it means."""

import ssl
import subprocess

import pytest
from aiosmtpd.smtp import AuthResult

from genonaut.clients.mail import MailSession, Relay, check_address
from genonaut.core.errors import (
    ChannelAwayError,
    DeliveryFailedError,
    DeliveryRefusedError,
    InvalidInputError,
)
from tests.support.servers import free_port
from tests.support.sinks import mail_sink

ME, ADA = "genonaut@example.org", "ada@example.org"


@pytest.fixture
def sink():
    with mail_sink() as opened:
        yield opened


def relay(port: int, **options) -> Relay:
    return Relay(
        **{"host": "127.0.0.1", "port": port, "security": "none", "timeout_s": 2, **options}
    )


def mail(subject: str = "Hello") -> bytes:
    return (
        f"From: {ME}\r\nTo: {ADA}\r\nSubject: {subject}\r\n\r\n.dots\r\n.\r\nare kept\r\n".encode()
    )


def test_many_go_over_one_connection(sink):
    with MailSession(relay(sink.port)) as session:
        for number in range(3):
            session.send(ME, ADA, mail(f"{number}"))
    assert [message["Subject"] for message in sink.messages] == ["0", "1", "2"]
    assert sink.messages[0].get_content().splitlines() == [".dots", ".", "are kept"]


def test_nothing_is_contacted_before_there_is_something_to_send():
    with MailSession(relay(free_port())):
        pass


def test_a_relay_that_is_not_there_is_away_for_all():
    with MailSession(relay(free_port())) as session, pytest.raises(ChannelAwayError):
        session.send(ME, ADA, mail())


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("550 no such user", DeliveryRefusedError),
        ("450 try later", DeliveryFailedError),
        ("421 closing", ChannelAwayError),
    ],
)
def test_a_refused_recipient_is_refused_for_good_for_now_or_for_all(sink, answer, error):
    sink.refused[ADA] = answer
    with MailSession(relay(sink.port)) as session:
        with pytest.raises(error) as refused:
            session.send(ME, ADA, mail())
        assert answer[4:] in str(refused.value)
        session.send(ME, "bob@example.org", mail())
    assert sink.recipients == ["bob@example.org"]


@pytest.mark.parametrize("refuses", ["recipient", "message"])
def test_a_relay_that_repeats_the_address_does_not_have_it_told(sink, refuses):
    words = f"550 5.1.1 <{ADA.title()}>: rejected"
    if refuses == "recipient":
        sink.refused[ADA] = words
    else:
        sink.answers.append(words)
    with MailSession(relay(sink.port)) as session, pytest.raises(DeliveryRefusedError) as refused:
        session.send(ME, ADA, mail())
    assert str(refused.value) == f"the relay refuses the {refuses}: 550 5.1.1 <…>: rejected"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("554 spam", DeliveryRefusedError),
        ("451 busy", DeliveryFailedError),
        ("421 closing", ChannelAwayError),
    ],
)
def test_a_refused_message_likewise(sink, answer, error):
    sink.answers.append(answer)
    with MailSession(relay(sink.port)) as session:
        with pytest.raises(error):
            session.send(ME, ADA, mail())
        session.send(ME, ADA, mail("again"))
    assert [message["Subject"] for message in sink.messages] == ["again"]


def test_a_message_whose_answer_is_lost_may_have_been_taken_and_counts(sink):
    sink.hangs_up_at = "DATA"
    with MailSession(relay(sink.port)) as session:
        with pytest.raises(DeliveryFailedError, match="the relay was lost"):
            session.send(ME, ADA, mail())
        session.send(ME, ADA, mail("again"))
    assert [message["Subject"] for message in sink.messages] == ["Hello", "again"]


def test_a_relay_may_take_longer_over_a_message_than_over_a_word(sink):
    sink.delay_s = 1
    with MailSession(relay(sink.port, timeout_s=0.5)) as session:
        session.send(ME, ADA, mail())


def test_a_message_that_is_too_large_is_refused_alone():
    with mail_sink(data_size_limit=150) as sink, MailSession(relay(sink.port)) as session:
        with pytest.raises(DeliveryRefusedError, match="message: 552"):
            session.send(ME, ADA, mail("a" * 100))
        session.send(ME, ADA, mail())
    assert [message["Subject"] for message in sink.messages] == ["Hello"]


def test_a_relay_that_is_lost_before_it_has_the_message_is_away_for_all(sink):
    with MailSession(relay(sink.port)) as session:
        session.send(ME, ADA, mail("first"))
        sink.hangs_up_at = "RCPT"
        with pytest.raises(ChannelAwayError, match="the relay was lost"):
            session.send(ME, ADA, mail())
        session.send(ME, ADA, mail("again"))
    assert [message["Subject"] for message in sink.messages] == ["first", "again"]


def test_a_relay_without_tls_gets_no_mail_when_tls_is_asked_for(sink):
    for security in ("starttls", "tls"):
        with (
            MailSession(relay(sink.port, security=security)) as session,
            pytest.raises(ChannelAwayError),
        ):
            session.send(ME, ADA, mail())
    assert sink.messages == []


@pytest.mark.filterwarnings("ignore:Requiring AUTH")
def test_a_login_is_shown_and_a_wrong_one_is_away_for_all():
    def check(server, session, envelope, mechanism, data) -> AuthResult:
        return AuthResult(success=(data.login, data.password) == (b"me", b"secret"))

    with mail_sink(authenticator=check, auth_required=True, auth_require_tls=False) as sink:
        with MailSession(relay(sink.port, user="me", password="secret")) as session:
            session.send(ME, ADA, mail())
        with (
            MailSession(relay(sink.port, user="me", password="wrong")) as session,
            pytest.raises(ChannelAwayError) as away,
        ):
            session.send(ME, ADA, mail())
    assert len(sink.messages) == 1
    assert "secret" not in str(away.value)


def test_mail_goes_over_tls_to_a_relay_that_is_trusted(tmp_path, monkeypatch):
    pair = certificate(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*pair)
    trusting = ssl.create_default_context(cafile=str(pair[0]))
    with mail_sink(tls_context=server, require_starttls=True) as sink:
        with (
            MailSession(relay(sink.port, host="localhost", security="starttls")) as session,
            pytest.raises(ChannelAwayError),
        ):
            session.send(ME, ADA, mail())
        monkeypatch.setattr(ssl, "create_default_context", lambda: trusting)
        with MailSession(relay(sink.port, host="localhost", security="starttls")) as session:
            session.send(ME, ADA, mail())
    assert len(sink.messages) == 1


def certificate(folder) -> tuple:
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-keyout", key, "-out", cert, "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "ada",
            "ada@",
            "@example.org",
            "ada@localhost",
            "ada@exa mple.org",
            "a b@example.org",
        ),
        *("ada@example.org\r\nBcc: eve@example.org", "ada@example.org, eve@example.org"),
        *("Ada <ada@example.org>", '"a b"@example.org', "ada@-example.org", "ada@example..org"),
        *("ada..b@example.org", ".ada@example.org", "ada@[127.0.0.1]", "äda@example.org"),
        *("ada@example.org\0", f"{'a' * 65}@example.org", f"a@{'b' * 60}.{'c' * 250}.org"),
    ],
)
def test_what_is_no_mail_address_is_refused(text):
    with pytest.raises(InvalidInputError) as refused:
        check_address(text)
    assert refused.value.field == "address"


def test_an_address_gets_its_usual_form():
    assert check_address(" Ada.L+pics@Example.ORG ") == "Ada.L+pics@example.org"
