"""Say what one wants to hear of, how, where and when."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from genonaut.api.requests_notifications import AddressRequest, PreferencesRequest
from genonaut.api.routes import notification_settings as routes
from genonaut.api.web.checking import FormError, check, whole
from genonaut.api.web.visitor import Form, FormDep, PageRoute, Visitor, VisitorDep
from genonaut.core.errors import InvalidInputError, NotFoundError
from genonaut.domain import preferences
from genonaut.domain.kinds import Kind
from genonaut.worker import discovery

router = APIRouter(prefix="/preferences", include_in_schema=False, route_class=PageRoute)

_HERE = "/preferences"
_WORDS = {
    "in_app": "Here",
    "email": "Mail",
    "webhook": "Webhook",
}


@router.get("")
def read(visitor: VisitorDep) -> Response:
    """Show how one is told now."""
    return _show(visitor)


@router.post("")
def save(form: FormDep) -> Response:
    """Keep what one wants."""
    try:
        wanted = check(PreferencesRequest, _values(form))
        routes.save_preferences(wanted, form.visitor.caller)
    except FormError as error:
        return _show(form.visitor, errors=error.errors, given=_given(form))
    except InvalidInputError as error:
        return _show(form.visitor, errors={error.field or "": str(error)}, given=_given(form))
    return form.visitor.lead(_HERE, "Your preferences are kept.")


@router.post("/{channel}/address")
def set_address(channel: str, form: FormDep) -> Response:
    """Be reached at an address, once it is verified; a webhook's secret is shown this once."""
    try:
        asked = check(AddressRequest, {"address": form.get("address")})
        kept = routes.address_set(channel, asked.address, form.visitor.caller)
    except FormError as error:
        return _wrong_address(form, channel, error.errors["address"])
    except InvalidInputError as error:
        return _wrong_address(form, channel, str(error))
    if kept["secret"]:
        return _show(form.visitor, secret=kept["secret"])
    return form.visitor.lead(_HERE, "The address is kept; it is used once it is confirmed.")


def _wrong_address(form: Form, channel: str, words: str) -> Response:
    field = f"address-{channel}"
    return _show(form.visitor, errors={field: words}, given={field: form.get("address")})


@router.get("/{channel}/address")
def back(channel: str, visitor: VisitorDep) -> Response:  # noqa: ARG001 - of the path
    """Lead who comes back to a form that was shown again to the page it is of."""
    return visitor.lead(_HERE)


@router.post("/{channel}/{act}")
def act(channel: str, act: str, form: FormDep) -> Response:
    """Check an address again, send a test there, or be reached there no more."""
    caller = form.visitor.caller
    if act == "verify":
        routes.verify(channel, caller)
        told = "The check was sent again."
    elif act == "test":
        routes.send_test(channel, caller)
        told = "A test is on its way."
    elif act == "remove":
        routes.remove_address(channel, caller)
        told = "Nothing more is sent there."
    else:
        raise NotFoundError
    return form.visitor.lead(_HERE, told)


def _values(form: Form) -> dict[str, Any]:
    """Read the form for the API's model, which judges it."""
    return {
        **_given(form),
        "digest_hour": whole(form.get("digest_hour")),
        "group_window_s": whole(form.get("group_window_s")),
        "quiet_from": form.get("quiet_from") or None,
        "quiet_until": form.get("quiet_until") or None,
    }


def _given(form: Form) -> dict[str, Any]:
    """Give what was typed and ticked, to be shown again; a box that is not ticked is a no."""
    chosen = set(form.all("wants"))
    names = ("timezone", "quiet_from", "quiet_until", "digest", "digest_hour", "group_window_s")
    return {
        **{name: form.get(name) for name in names},
        "kinds": {
            kind.value: {name: f"{kind}:{name}" in chosen for name in discovery.channels()}
            for kind in Kind
        },
    }


def _show(
    visitor: Visitor,
    *,
    errors: dict[str, str] | None = None,
    given: dict[str, Any] | None = None,
    secret: str | None = None,
) -> Response:
    channels = discovery.channels()
    with visitor.look() as view:
        wanted = preferences.read(view.session, view.who.user_id).public(channels)
        ways = routes.channels_of(view.session, view.who.user_id, visitor.services.settings)
    return visitor.show(
        "preferences.html",
        view,
        active="preferences",
        status=422 if errors else 200,
        wanted={**wanted, **(given or {})},
        ways=ways,
        words=_WORDS,
        errors=errors or {},
        secret=secret,
    )
