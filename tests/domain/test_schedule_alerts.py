"""Operators hear of a late schedule once per due time."""

from datetime import timedelta

from genonaut.domain import notifications, schedule_alerts, schedule_clock, schedules
from genonaut.domain.schedules import Terms


def test_a_late_schedule_is_told_of_once_and_a_paused_one_is_not(session, make_user):
    def make(name: str, ago_s: float):
        due_at = schedule_clock.look(session).now - timedelta(seconds=ago_s)
        return schedules.create(session, name, Terms(task="x", every_s=60), next_due_at=due_at)

    olga, ada = make_user(role="operator"), make_user()
    assert schedule_alerts.tell_late(session) == 0
    make("soon", 50)
    make("late", 90)
    make("paused", 200)
    now = schedule_clock.look(session).now
    schedules.pause(session, "paused", actor="olga", now=now)
    assert schedule_alerts.tell_late(session) == 1
    assert schedule_alerts.tell_late(session) == 0
    (told,) = notifications.list_for(session, olga.id)
    assert (told.kind, told.title) == ("schedule_late", "late is late")
    assert told.data["schedule"] == "late"
    assert notifications.list_for(session, ada.id) == []
