"""Say when daily digests are looked for: users' hours begin at any quarter of ours."""

from genonaut.worker.schedules import schedule
from genonaut.worker.tasks.notifications import digest

schedule("notifications.digest.quarterly", digest, cron="*/15 * * * *")
