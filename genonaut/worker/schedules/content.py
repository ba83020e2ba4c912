"""Say when the collection is counted."""

from genonaut.worker.schedules import schedule
from genonaut.worker.tasks.content import refresh_stats

schedule("content.refresh_stats.hourly", refresh_stats, cron="0 * * * *")
