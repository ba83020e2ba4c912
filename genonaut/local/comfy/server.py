"""Put the routes together: ComfyUI's own, and /simulator for tests."""

import asyncio
import contextlib
import os
import platform
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import PIL
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from genonaut.local.comfy import catalog, files
from genonaut.local.comfy.answers import (
    Border,
    Endpoint,
    as_json,
    empty,
    guarded,
    misbehave,
    not_found,
    read_body,
    read_json,
    text,
)
from genonaut.local.comfy.executor import Executor
from genonaut.local.comfy.faults import FaultBox, Faults
from genonaut.local.comfy.folders import Folders
from genonaut.local.comfy.ledger import Ledger
from genonaut.local.comfy.nodes import registry
from genonaut.local.comfy.sockets import FEATURES, Sockets
from genonaut.local.comfy.state import Item, PromptQueue
from genonaut.local.comfy.validation import RefusedError, validate

COMFYUI_VERSION = "0.3.64"


@dataclass(frozen=True)
class Options:
    """Hold what the command line chose."""

    directory: Path
    argv: tuple[str, ...] = ()
    step_delay_s: float = 0.04
    load_delay_s: float = 0.4
    faults: Faults = field(default_factory=Faults)
    allow_faults: bool = False
    synthetic_nodes: bool = False


class Simulator:
    """Be the whole server without the network: state, executor and one method per route."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.folders = Folders(options.directory)
        self.faults = FaultBox(options.faults)
        self.ledger = Ledger()
        self.nodes = registry(synthetic=options.synthetic_nodes)
        self.sockets = Sockets(self.faults)
        self.queue = PromptQueue(self._queue_changed, self.ledger)
        self.executor = Executor(
            self.queue,
            self.sockets,
            self.nodes,
            self.folders,
            self.faults,
            self.ledger,
            step_delay_s=options.step_delay_s,
            load_delay_s=options.load_delay_s,
        )

    def app(self) -> ASGIApp:
        """Give the ASGI application."""
        routes: list[BaseRoute] = [
            _route("/prompt", GET=self.get_prompt, POST=self.post_prompt),
            _route("/queue", GET=self.get_queue, POST=self.post_queue),
            _route("/interrupt", POST=self.post_interrupt),
            _route("/history", GET=self.get_history, POST=self.post_history),
            _route("/history/{prompt_id:path}", GET=self.get_history_of),
            _route("/view", GET=self.get_view),
            _route("/upload/image", POST=self.post_upload),
            _route("/models", GET=self.get_models),
            _route("/models/{folder}", GET=self.get_models_in),
            _route("/embeddings", GET=self.get_embeddings),
            _route("/object_info", GET=self.get_object_info),
            _route("/object_info/{name}", GET=self.get_object_info_of),
            _route("/system_stats", GET=self.get_system_stats),
            _route("/features", GET=self.get_features),
            _route("/free", POST=self.post_free),
            WebSocketRoute("/ws", self.socket),
        ]
        if self.options.allow_faults:
            routes.append(_route("/simulator/faults", GET=self.get_faults, POST=self.post_faults))
            routes.append(_route("/simulator/log", GET=self.get_log))
        inner = Starlette(
            routes=routes,
            exception_handlers={HTTPException: _as_recorded},
            lifespan=self._lifespan,
        )
        inner.router.redirect_slashes = False
        return Border(inner, self.faults)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        publisher = asyncio.create_task(self.sockets.publish())
        self.executor.start()
        yield
        publisher.cancel()

    def _status(self) -> dict[str, Any]:
        return {"exec_info": {"queue_remaining": self.queue.remaining()}}

    def _queue_changed(self) -> None:
        self.sockets.send("status", {"status": self._status()}, None)

    async def socket(self, socket: WebSocket) -> None:
        """Hold a WebSocket."""
        await self.sockets.serve(socket, self._status())

    async def get_prompt(self, request: Request) -> Response:
        """Tell how many prompts run or wait."""
        return as_json(self._status())

    async def post_prompt(self, request: Request) -> Response:
        """Check a graph and queue it."""
        fault = self.faults.strikes("prompt_post")
        if fault is not None and not fault.endswith("_after_accept"):
            return await misbehave(fault, request.scope)
        response = await self._accept(request)
        return response if fault is None else await misbehave(fault, request.scope)

    async def _accept(self, request: Request) -> Response:
        body = await read_json(request)
        if "number" in body:
            number = float(body["number"])
        else:
            number = self.queue.take_number()
            if "front" in body and body["front"]:  # noqa: RUF019 - the body may be a list
                number = -number
        if "prompt" not in body:
            refused = RefusedError("no_prompt", "No prompt provided", "No prompt provided")
            return as_json(refused.body, 400)
        graph = body["prompt"]
        prompt_id = str(body["prompt_id"]) if "prompt_id" in body else str(uuid.uuid4())
        try:
            outputs, node_errors = validate(
                graph, self.nodes, self.folders, body.get("partial_execution_targets")
            )
        except RefusedError as error:
            return as_json(error.body, 400)
        extra_data = body.get("extra_data", {})
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        self.queue.put(Item(number, prompt_id, graph, extra_data, outputs))
        return as_json({"prompt_id": prompt_id, "number": number, "node_errors": node_errors})

    async def get_queue(self, request: Request) -> Response:
        """Show what runs and what waits."""
        fault = self.faults.strikes("queue")
        if fault is not None:
            return await misbehave(fault, request.scope)
        running, pending = self.queue.view()
        return as_json({"queue_running": running, "queue_pending": pending})

    async def post_queue(self, request: Request) -> Response:
        """Delete pending prompts, or all of them."""
        body = await read_json(request)
        if body.get("clear"):
            self.queue.clear()
        for prompt_id in body.get("delete", ()):
            self.queue.delete(prompt_id)
        return empty()

    async def post_interrupt(self, request: Request) -> Response:
        """Stop one prompt if it runs; without a readable body whatever runs."""
        try:
            body = await read_json(request)
        except ValueError:
            body = {}
        prompt_id = body.get("prompt_id")
        if not prompt_id or self.queue.is_running(prompt_id):
            self.executor.interrupt.set()
        return empty()

    async def get_history(self, request: Request) -> Response:
        """Page through what has ended."""
        fault = self.faults.strikes("history")
        if fault is not None:
            return await misbehave(fault, request.scope)
        query = request.query_params
        max_items = int(query["max_items"]) if "max_items" in query else None
        return as_json(self.queue.history_page(max_items, int(query.get("offset", -1))))

    async def get_history_of(self, request: Request) -> Response:
        """Show how one prompt ended."""
        fault = self.faults.strikes("history")
        if fault is not None:
            return await misbehave(fault, request.scope)
        return as_json(self.queue.history(request.path_params["prompt_id"]))

    async def post_history(self, request: Request) -> Response:
        """Delete entries, or all of them."""
        body = await read_json(request)
        if body.get("clear"):
            self.queue.forget_history()
        if "delete" in body:
            self.queue.forget_history(body["delete"])
        return empty()

    async def get_view(self, request: Request) -> Response:
        """Give a picture."""
        return await files.view(request, self.folders, self.faults)

    async def post_upload(self, request: Request) -> Response:
        """Take a picture."""
        return await files.upload(request, self.folders)

    async def get_models(self, request: Request) -> Response:
        """List the model folders."""
        return as_json(list(catalog.MODEL_FOLDERS))

    async def get_models_in(self, request: Request) -> Response:
        """List the models of one kind."""
        models = catalog.MODEL_FOLDERS.get(request.path_params["folder"])
        return empty(404) if models is None else as_json(models)

    async def get_embeddings(self, request: Request) -> Response:
        """List the embeddings: there are none."""
        return as_json([])

    async def get_object_info(self, request: Request) -> Response:
        """Describe every node class."""
        return as_json({name: node.object_info(self.folders) for name, node in self.nodes.items()})

    async def get_object_info_of(self, request: Request) -> Response:
        """Describe one node class; unknown ones give an empty object."""
        name = request.path_params["name"]
        found = self.nodes.get(name)
        return as_json({name: found.object_info(self.folders)} if found else {})

    async def get_features(self, request: Request) -> Response:
        """Tell what the server can do."""
        return as_json(FEATURES)

    async def get_system_stats(self, request: Request) -> Response:
        """Tell what the server runs on; there is no GPU, so the figures are those of the RAM."""
        total = _memory("SC_PHYS_PAGES")
        free = _memory("SC_AVPHYS_PAGES") or total  # macOS does not tell
        return as_json(
            {
                "system": {
                    "os": os.name,
                    "ram_total": total,
                    "ram_free": free,
                    "comfyui_version": COMFYUI_VERSION,
                    "required_frontend_version": "none: simulator",
                    "installed_templates_version": None,
                    "required_templates_version": "none: simulator",
                    "python_version": platform.python_version(),
                    "pytorch_version": f"none: pillow {PIL.__version__}",
                    "embedded_python": False,
                    "argv": ["genonaut.local.comfy", *self.options.argv],
                },
                "devices": [
                    {
                        "name": "simulator",
                        "type": "cpu",
                        "index": None,
                        "vram_total": total,
                        "vram_free": free,
                        "torch_vram_total": total,
                        "torch_vram_free": free,
                    }
                ],
            }
        )

    async def post_free(self, request: Request) -> Response:
        """Drop caches after the current prompt."""
        body = await read_json(request)
        self.queue.free(
            unload_models=bool(body.get("unload_models")),
            free_memory=bool(body.get("free_memory")),
        )
        return empty()

    async def get_faults(self, request: Request) -> Response:
        """Show the present faults."""
        return as_json(self.faults.now.model_dump())

    async def post_faults(self, request: Request) -> Response:
        """Replace the faults; what is wrong with them is a 422."""
        try:
            faults = Faults.model_validate_json(await read_body(request))
        except ValidationError as error:
            return as_json(error.errors(include_context=False, include_url=False), 422)
        if faults.forget:
            self.queue.forget_everything()
            self.queue.free(unload_models=True, free_memory=True)
            self.folders.wipe_temp()
        if faults.forget or faults.drop_sockets:
            self.sockets.drop_all()
        self.faults.replace(faults)
        return as_json(faults.model_dump())

    async def get_log(self, request: Request) -> Response:
        """List every prompt received, how often it ran and how it ended."""
        return as_json({"prompts": self.ledger.entries()})


def _route(path: str, **by_method: Endpoint) -> Route:
    async def endpoint(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await by_method[method](request)

    return Route(path, guarded(endpoint), methods=list(by_method))


def _memory(name: str) -> int:
    pages = os.sysconf(name) if name in os.sysconf_names else 0
    return pages * os.sysconf("SC_PAGE_SIZE")


async def _as_recorded(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405:
        allowed = ",".join(
            sorted((error.headers or {}).get("Allow", "").replace(" ", "").split(","))
        )
        return text("405: Method Not Allowed", 405, {"allow": allowed})
    return not_found()
