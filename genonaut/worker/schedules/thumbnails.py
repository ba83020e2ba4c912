"""Say when thumbnails are made that are missing, and made anew after the settings have changed."""

from genonaut.domain.thumbnails import Only
from genonaut.worker.schedules import schedule
from genonaut.worker.tasks.thumbnails import Params, backfill

schedule("thumbnails.backfill.nightly", backfill, cron="30 2 * * *")
schedule(
    "thumbnails.backfill.outdated", backfill, cron="30 2 * * *", params=Params(only=Only.OUTDATED)
)
