"""Run plain Celery on the same broker, as its documentation says: no row, no claim."""

import time

import redis
from celery import Celery

from genonaut.api.config import environment_variables

URL = environment_variables().get("BENCH_REDIS_URL", "")
STARTED = "started"

app = Celery("plain", broker=URL)
app.conf.update(
    task_ignore_result=True, task_acks_late=True, worker_prefetch_multiplier=1, timezone="UTC"
)
_redis = redis.Redis.from_url(URL) if URL else None


@app.task(name="start")
def start() -> None:
    """Say when the task began."""
    began = time.time()
    if _redis is not None:
        _redis.rpush(STARTED, began)
