"""Say when what is past its age is removed."""

from genonaut.worker.schedules import schedule
from genonaut.worker.tasks.retention import purge

schedule("retention.purge.nightly", purge, cron="30 4 * * *")
