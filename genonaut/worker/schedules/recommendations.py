"""Say when recommendations are made, and when those who asked for it are told of them."""

from genonaut.worker.schedules import schedule
from genonaut.worker.tasks.recommendation_digests import digest
from genonaut.worker.tasks.recommendations import Params, Scope, refresh

schedule("recommendations.refresh.nightly", refresh, cron="0 3 * * *")
schedule(
    "recommendations.refresh.active",
    refresh,
    cron="30 * * * *",
    params=Params(scope=Scope.ACTIVE_SINCE),
    missed="skip",
)
schedule("recommendations.digest.weekly", digest, cron="0 9 * * mon")
