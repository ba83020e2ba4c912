"""Complete the OpenAPI document with what the routes share."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from genonaut.api.answers import Problem

TAGS = [
    {"name": "generation jobs", "description": "Ask for pictures and follow them."},
    {"name": "content", "description": "What was made."},
    {"name": "recommendations", "description": "What one might like next, and what one did."},
    {"name": "statistics", "description": "What was made, counted."},
    {"name": "notifications", "description": "What a user is told."},
    {"name": "session", "description": "Logging in; every other call wants a login."},
    {"name": "tasks", "description": "Maintenance; auditors read, operators act."},
    {
        "name": "schedules",
        "description": "When tasks run by themselves; auditors read, operators act.",
    },
    {"name": "operations", "description": "What waits and who works; for auditors."},
    {"name": "audit", "description": "Who did what; for auditors."},
    {"name": "users", "description": "Who may log in, as what and with which tokens; for admins."},
    {"name": "health", "description": "For monitors; no login."},
    {"name": "webhooks", "description": "For what stands beside ComfyUI; signed."},
]
PUBLIC = frozenset({"logIn", "livez", "readyz", "health", "receiveComfyuiWebhook"})
"""Operations without a login."""
LOCAL = frozenset({"readMetrics"})
"""Operations that a program on this machine needs no login for."""

_DESCRIPTION = """Turn prompts into pictures with ComfyUI.

Errors are problems (RFC 9457). Lists are pages: follow `Link: rel="next"` or `next_cursor`.
Changes are sent over WebSockets: `/ws/jobs/{id}`, `/ws/me`, and for auditors `/ws/runs/{id}` and
`/ws/admin`; see the project's `docs/live.md`.
"""


def install(app: FastAPI, cookie_name: str) -> None:
    """Make ``app.openapi`` give the completed document, made once."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(app, cookie_name)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _complete(app: FastAPI, cookie_name: str) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=_DESCRIPTION,
        routes=app.routes,
        tags=TAGS,
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(schemas["Problem"].pop("$defs", {}))
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API token."},
        "session": {
            "type": "apiKey",
            "in": "cookie",
            "name": cookie_name,
            "description": "A browser session; changes also need the X-CSRF-Token header.",
        },
    }
    for path in document["paths"].values():
        for operation in path.values():
            if operation["operationId"] not in PUBLIC:
                operation["security"] = [{"bearer": []}, {"session": []}]
                if operation["operationId"] in LOCAL:
                    operation["security"].insert(0, {})
    return document
