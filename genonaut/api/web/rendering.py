"""Turn templates into pages."""

import hashlib
import json
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from lucide.jinja import lucide
from markupsafe import Markup
from starlette.responses import HTMLResponse

from genonaut.api.config import Settings
from genonaut.api.web import words

FOLDER = Path(__file__).parent
ASSETS = FOLDER / "assets"
HTMX = "htmx-2.min.js"


def htmx_folder() -> Path:
    """Find the folder of the installed wheel that holds htmx.

    Raises: RuntimeError: the wheel is not installed.
    """
    found = find_spec("django_htmx")
    if found is None or found.origin is None:
        raise RuntimeError("the package django-htmx, which carries htmx, is not installed")
    return Path(found.origin).parent / "static" / "django_htmx"


@lru_cache
def asset(name: str) -> str:
    """Give the address of one of our files, which changes when the file does."""
    content = (ASSETS / name).read_bytes()
    return f"/assets/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"


@lru_cache
def icon(name: str, size: int = 18) -> Markup:
    """Draw an icon of lucide's, as something to look at only: name what it means beside it."""
    drawn = str(lucide(name, size=size, aria_hidden="true", focusable="false"))
    return Markup(drawn.replace("<svg", '<svg class="icon"', 1))  # noqa: S704 - lucide's own file


_environment = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=select_autoescape(),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.globals.update(
    asset=asset,
    icon=icon,
    htmx=f"/assets/htmx/{HTMX}",
    between=words.between,
    plural=words.plural,
)
_environment.filters.update(
    ago=words.time_tag,
    exact=words.exact,
    wall=words.wall,
    duration=words.duration,
    bytes=words.size,
    number=words.number,
    human=words.human,
    capitalized=words.capitalized,
)


def render(
    name: str,
    settings: Settings,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    **values: Any,
) -> HTMLResponse:
    """Fill in a page."""
    shown = {
        "simulated": settings.uses_simulator,
        "environment": settings.app_env,
        "theme": "auto",
        **values,
    }
    text = _environment.get_template(name).render(shown)
    return HTMLResponse(text, status, headers=headers)


def toast(text: str, kind: str = "done") -> dict[str, str]:
    """Give the header that has htmx show a toast; it goes with any status."""
    return {"HX-Trigger": json.dumps({"toast": {"text": text[:300], "kind": kind}})}
