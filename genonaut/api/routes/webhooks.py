"""Hear from ComfyUI's side that a prompt has ended: a hint, which moves no state."""

import hashlib
import hmac
import time
from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from genonaut.api import answers
from genonaut.api.answers import problems
from genonaut.api.deps import Services, ServicesDep
from genonaut.api.requests import WebhookBody
from genonaut.core.errors import ConflictError, NotFoundError, UnauthorizedError
from genonaut.domain import generation, idempotency

WINDOW_S = 300

router = APIRouter(tags=["webhooks"])

TimestampHeader = Annotated[
    str | None,
    Header(alias="X-Genonaut-Timestamp", description="Unix time, seconds; at most 5 minutes off."),
]
SignatureHeader = Annotated[
    str | None,
    Header(
        alias="X-Genonaut-Signature",
        description="`sha256=` and the HMAC-SHA256 of `timestamp.body`, hex.",
    ),
]


@router.post(
    "/webhooks/comfyui",
    status_code=202,
    operation_id="receiveComfyuiWebhook",
    responses={
        202: {"model": answers.Received, "description": "The job's worker will look."},
        **problems(400, 401, 404, 408, 409, 413, 422, 503),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": WebhookBody.model_json_schema()}},
        }
    },
)
async def receive(
    request: Request,
    services: ServicesDep,
    timestamp: TimestampHeader = None,
    signature: SignatureHeader = None,
) -> Response:
    """Note that a prompt has ended; whoever works on its job asks ComfyUI and collects.

    The same signed message is taken once: a repetition is 409.
    """
    secret = services.settings.comfyui_webhook_secret
    if secret is None:
        raise NotFoundError("webhooks are not configured")
    body = await request.body()
    verified = _verify(secret, timestamp or "", signature or "", body)
    try:
        told = WebhookBody.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError(
            [{**item, "loc": ("body", *item["loc"])} for item in error.errors()]
        ) from error
    job_id = await run_in_threadpool(_record, services, told.prompt_id, verified)
    return JSONResponse({"job_id": job_id}, 202)


def _verify(secret: str, timestamp: str, signature: str, body: bytes) -> str:
    """Check time and signature and give the signature, hex.

    Raises: UnauthorizedError: either is wrong.
    """
    signed = timestamp.encode(errors="replace") + b"." + body
    expected = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    given = signature.removeprefix("sha256=").lower()
    if not hmac.compare_digest(expected.encode(), given.encode(errors="replace")):
        raise UnauthorizedError("the signature is missing or wrong", code="wrong_signature")
    if not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 15:
        raise UnauthorizedError("the timestamp is not a Unix time", code="wrong_timestamp")
    if abs(time.time() - int(timestamp)) > WINDOW_S:
        raise UnauthorizedError("the timestamp is too old or too new", code="wrong_timestamp")
    return expected


def _record(services: Services, prompt_id: str, signature: str) -> int:
    with services.database.transaction() as session:
        job = generation.find_by_prompt(session, prompt_id)
        if job is None:
            raise NotFoundError("no job waits for this prompt")
        if not idempotency.is_first_receipt(session, signature):
            raise ConflictError("this message was received before", code="replayed")
        generation.note_webhook(session, job)
        return job.id
