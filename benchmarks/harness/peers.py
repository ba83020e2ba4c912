"""Serve what ours is measured against: bare Starlette, nothing but the one thing measured."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import uuid4

import redis.asyncio
from anyio import to_thread
from psycopg2.extensions import connection
from psycopg2.extras import Json, RealDictCursor
from psycopg2.pool import ThreadedConnectionPool
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from genonaut.api.config import environment_variables

POOL = 10

_environment = environment_variables()

INSERT = """
    INSERT INTO generation_jobs
        (user_id, prompt, negative_prompt, checkpoint_model, lora_models, width, height,
         batch_size, params, max_attempts, celery_task_id, progress)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
    RETURNING id
"""
SELECT = "SELECT * FROM generation_jobs WHERE id = %s"


class _Pool:
    """Lend connections in autocommit: one statement is one round trip."""

    def __init__(self, url: str) -> None:
        self._pool = ThreadedConnectionPool(POOL, POOL, url)

    @contextmanager
    def connection(self) -> Iterator[connection]:
        taken = self._pool.getconn()
        taken.autocommit = True
        try:
            yield taken
        finally:
            self._pool.putconn(taken)


@asynccontextmanager
async def _with_pool(app: Starlette) -> AsyncIterator[None]:
    to_thread.current_default_thread_limiter().total_tokens = POOL
    app.state.pool = _Pool(_environment["BENCH_DATABASE_URL"])
    yield


async def create(request: Request) -> Response:
    """Store a job with one INSERT."""
    asked: dict[str, Any] = await request.json()

    def store() -> int:
        with request.app.state.pool.connection() as opened, opened.cursor() as cursor:
            cursor.execute(
                INSERT,
                (
                    request.path_params["user_id"],
                    asked["prompt"],
                    asked.get("negative_prompt"),
                    asked.get("checkpoint_model"),
                    None,
                    asked["width"],
                    asked["height"],
                    asked["batch_size"],
                    Json({"sampler_params": asked["sampler_params"]}),
                    4,
                    str(uuid4()),
                    Json({"phase": "queued"}),
                ),
            )
            return int(cursor.fetchone()[0])

    return JSONResponse({"id": await run_in_threadpool(store)}, 202)


def read(request: Request) -> Response:
    """Give a job, found with one SELECT by its key."""
    with (
        request.app.state.pool.connection() as opened,
        opened.cursor(cursor_factory=RealDictCursor) as cursor,
    ):
        cursor.execute(SELECT, (request.path_params["job_id"],))
        row = cursor.fetchone()
    return Response(json.dumps(row, default=str), media_type="application/json")


async def fan_out(socket: WebSocket) -> None:
    """Pass on what is published, over a Redis connection of this socket's own."""
    await socket.accept()
    async with redis.asyncio.Redis.from_url(_environment["BENCH_REDIS_URL"]).pubsub() as heard:
        await heard.subscribe("news")
        async for message in heard.listen():
            if message["type"] == "message":
                await socket.send_text(message["data"].decode())
            else:
                await socket.send_text("subscribed")


store = Starlette(
    routes=[
        Route("/jobs/{user_id}", create, methods=["POST"]),
        Route("/jobs/{job_id:int}", read, methods=["GET"]),
    ],
    lifespan=_with_pool,
)


async def _queue_length(_: Request) -> Response:
    return JSONResponse({"exec_info": {"queue_remaining": 0}})


async def _refuse(_: Request) -> Response:
    error = {"type": "invalid_prompt", "message": "refused", "details": "", "extra_info": {}}
    return JSONResponse({"error": error, "node_errors": {}}, 400)


sockets = Starlette(routes=[WebSocketRoute("/news", fan_out)])
refusing_comfyui = Starlette(
    routes=[
        Route("/prompt", _queue_length, methods=["GET"]),
        Route("/prompt", _refuse, methods=["POST"]),
    ]
)
"""A ComfyUI that refuses every prompt at once: a job ends right after its claim."""
