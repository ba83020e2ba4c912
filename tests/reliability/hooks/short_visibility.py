"""A broker that takes a task for lost while it still runs."""

from genonaut.worker.queue_app import celery

celery.conf.visibility_timeout = 2
for options in (
    celery.conf.broker_transport_options,
    celery.conf.result_backend_transport_options,
):
    options["visibility_timeout"] = 2
celery.conf.broker_transport_options["unacked_restore_interval"] = 1
