"""Say when the record of what was stuck is written; see ``worker/reconciler.py`` for the rest."""

from genonaut.worker.schedules import schedule
from genonaut.worker.tasks.reaping import reap_stale

schedule("jobs.reap_stale.every_minute", reap_stale, cron="* * * * *")
