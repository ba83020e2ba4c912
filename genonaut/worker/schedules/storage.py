"""Say when storage is swept."""

from genonaut.worker.schedules import schedule
from genonaut.worker.tasks.storage import sweep_orphans

schedule("storage.sweep_orphans.weekly", sweep_orphans, cron="0 4 * * sun")
