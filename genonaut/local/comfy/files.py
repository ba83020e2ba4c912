"""Serve pictures through /view and take them through /upload/image."""

import io
import mimetypes
import re
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from genonaut.local.comfy.answers import as_json, empty, misbehave, read_body
from genonaut.local.comfy.connections import reset
from genonaut.local.comfy.faults import FaultBox
from genonaut.local.comfy.folders import Folders

_BOUNDARY = re.compile(r'boundary="?([^";]+)"?')
_PARAMETER = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Part(NamedTuple):
    """Be one field of a multipart form."""

    filename: str | None
    content: bytes


async def view(request: Request, folders: Folders, faults: FaultBox) -> Response:
    """Answer with a file; ``preview`` and ``channel`` re-encode it."""
    query = request.query_params
    if "filename" not in query:
        return empty(404)
    name, kind = query["filename"], query.get("type", "output")
    if not name or name.startswith("/") or ".." in name or kind not in folders.by_type:
        return empty(400)
    folder = folders.inside(kind, query.get("subfolder", ""))
    if folder is None:
        return empty(403)
    path = folder / Path(name).name
    if not path.is_file():
        return empty(404)
    fault = faults.strikes("view")
    if fault is not None:
        return await _spoiled(fault, path, request)
    disposition = {"content-disposition": f'filename="{path.name}"'}
    if "preview" in query or "channel" in query:
        body, media_type = await run_in_threadpool(
            _encode, path, query.get("preview"), query.get("channel")
        )
        return Response(body, headers=disposition, media_type=media_type)
    stat = path.stat()
    etag = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    response = FileResponse(path, headers={**disposition, "etag": etag}, media_type=media_type)
    response.set_stat_headers(stat)
    if etag in request.headers.get("if-none-match", ""):
        kept = ("etag", "last-modified", "content-type", "content-disposition")
        return Response(
            status_code=HTTPStatus.NOT_MODIFIED,
            headers={name: response.headers[name] for name in kept},
        )
    return response


def _encode(path: Path, preview: str | None, channel: str | None) -> tuple[bytes, str]:
    buffer = io.BytesIO()
    with Image.open(path) as picture:
        if preview is not None:
            name, _, quality = preview.partition(";")
            name = name if name in ("webp", "jpeg") else "webp"
            mode = "RGB" if name == "jpeg" else picture.mode
            level = int(quality) if quality.isdigit() else 90
            picture.convert(mode).save(buffer, name, quality=level)
            return buffer.getvalue(), f"image/{name}"
        if channel == "a":
            alpha = picture.convert("RGBA").getchannel("A")
            shown = Image.new("RGBA", picture.size)
            shown.putalpha(alpha)
        else:
            shown = Image.new("RGB", picture.size)
            shown.paste(picture.convert("RGB"))
        shown.save(buffer, "PNG")
    return buffer.getvalue(), "image/png"


async def _spoiled(fault: str, path: Path, request: Request) -> Response:
    content = await run_in_threadpool(path.read_bytes)
    if fault == "404":
        return empty(404)
    if fault == "empty":
        return Response(b"", media_type="image/png")
    if fault == "corrupt":
        half = len(content) // 2
        return Response(content[:half] + bytes(len(content) - half), media_type="image/png")
    if fault == "truncated":

        async def cut_short() -> AsyncIterator[bytes]:
            yield content[: len(content) // 2]
            reset(request.scope)

        headers = {"content-length": str(len(content))}
        return StreamingResponse(cut_short(), headers=headers, media_type="image/png")
    return await misbehave(fault, request.scope)


async def upload(request: Request, folders: Folders) -> Response:
    """Store an uploaded file; an existing name with other bytes is renamed ``x (1).png``."""
    body = await read_body(request)
    parts = _multipart(request.headers, body)
    image = parts.get("image")
    if image is None or not image.filename:
        return empty(400)
    fields = {name: part.content.decode() for name, part in parts.items() if name != "image"}
    kind = fields.get("type", "input")
    subfolder = fields.get("subfolder", "")
    base = folders.by_type[kind]  # unknown: KeyError, which is the recorded 500
    target = folders.inside(kind, subfolder, image.filename)
    if target is None or target == base:
        return empty(400)
    target.parent.mkdir(parents=True, exist_ok=True)
    if fields.get("overwrite") not in ("true", "1"):
        stem, suffix, count = target.stem, target.suffix, 1
        while target.exists() and target.read_bytes() != image.content:
            target = target.with_name(f"{stem} ({count}){suffix}")
            count += 1
    target.write_bytes(image.content)
    return as_json({"name": target.name, "subfolder": subfolder, "type": kind})


def _multipart(headers: Headers, body: bytes) -> dict[str, Part]:
    boundary = _BOUNDARY.search(headers.get("content-type", ""))
    if boundary is None:
        return {}
    parts: dict[str, Part] = {}
    for block in (b"\r\n" + body).split(f"\r\n--{boundary.group(1)}".encode())[1:-1]:
        head, _, content = block.lstrip(b"\r\n").partition(b"\r\n\r\n")
        for line in head.decode(errors="replace").splitlines():
            if line.lower().startswith("content-disposition"):
                values = dict(_PARAMETER.findall(line))
                parts[values.get("name", "")] = Part(values.get("filename"), content)
    return parts
