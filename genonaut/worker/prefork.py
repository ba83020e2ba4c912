"""Pool processes as Celery makes them, but for one way in which the end of one ends the worker."""

from typing import Any

from celery.concurrency import asynpool, prefork


class _Pool(asynpool.AsynPool):
    """Let a process that has just ended be.

    Between the moment in which its end is noticed and the one in which it is taken out of the
    pool there is nothing left to watch of it. When the broker's connection is made anew just
    then, Celery watches all of the pool again, fails over this one with a ValueError, and the
    worker ends. The next look at the pool, within five seconds, replaces it.
    """

    def _track_child_process(self, proc: Any, hub: Any) -> None:
        if getattr(proc, "_sentinel_poll", proc) is not None:
            super()._track_child_process(proc, hub)


class TaskPool(prefork.TaskPool):
    """Run tasks in processes of their own, as ``worker_pool``."""

    Pool = _Pool
