"""Plain RedBeat, as its documentation has it, with the lock and loop times that we use."""

from celery import Celery

from genonaut.api.config import environment_variables

_URL = environment_variables().get("BENCH_REDIS_URL", "")

app = Celery("plain_beat", broker=_URL, set_as_current=False)
app.conf.update(
    beat_scheduler="redbeat.RedBeatScheduler",
    beat_max_loop_interval=5,
    redbeat_redis_url=_URL,
    redbeat_key_prefix="plain:",
    redbeat_lock_timeout=20,
    task_ignore_result=True,
)
