"""Serve the pages that links in mail lead to: no login, only what the link itself allows.

Opening a link changes nothing, since mail scanners open every one; the button on its page does.
"""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse, Response

from genonaut.api.deps import Services, ServicesDep
from genonaut.api.web.rendering import render
from genonaut.core.errors import InvalidInputError
from genonaut.domain import addresses, signing

router = APIRouter(include_in_schema=False)

TokenParam = Annotated[str, Query(max_length=200)]


@router.get("/unsubscribe")
def ask_unsubscribe(services: ServicesDep, token: TokenParam = "") -> Response:
    """Ask whether to send no more."""
    return _ask(services, token, "unsubscribe", "Get no more mail from Genonaut?", "Send no more")


@router.post("/unsubscribe")
def unsubscribe(services: ServicesDep, token: TokenParam = "") -> Response:
    """Send no more to the address the link was sent to; mail programs post here by themselves."""
    with services.database.transaction() as session:
        try:
            key = signing.installation_key(session, services.settings.secret_key)
            addresses.unsubscribe(session, key, token)
        except InvalidInputError:
            return _over(services)
    return _told(services, "Nothing more will be sent to this address.")


@router.get("/verify-email")
def ask_verify(services: ServicesDep, token: TokenParam = "") -> Response:
    """Ask whether the address is to be used."""
    question = "Have notifications from Genonaut sent to this address?"
    return _ask(services, token, "verify-email", question, "Confirm the address")


@router.post("/verify-email")
def verify(services: ServicesDep, token: TokenParam = "") -> Response:
    """Take the address into use the link was sent to."""
    with services.database.transaction() as session:
        try:
            key = signing.installation_key(session, services.settings.secret_key)
            addresses.verify(session, key, token)
        except InvalidInputError:
            return _over(services)
    return _told(services, "This address is confirmed: notifications will be sent to it.")


def _ask(services: Services, token: str, page: str, question: str, yes: str) -> HTMLResponse:
    return render(
        "mail_link.html", services.settings, token=token, page=page, question=question, yes=yes
    )


def _told(services: Services, words: str, status: int = 200) -> HTMLResponse:
    return render("mail_link.html", services.settings, status=status, question=words, page=None)


def _over(services: Services) -> HTMLResponse:
    return _told(services, "This link is not valid any more.", 404)
