"""Acts are listed newest first, page by page, by people and by programs."""

from genonaut.domain import audit, users
from genonaut.domain.users import Principal, Role


def test_acts_are_listed_newest_first_and_page_by_page(session, make_user):
    olga = make_user("olga", role=Role.OPERATOR)
    who = Principal(olga.id, olga.username, Role.OPERATOR)
    users.audit(session, who, "run.trigger", "run:1", {"task": "content.refresh_stats"})
    session.flush()
    users.audit(session, "beat", "schedule.fire", "schedule:nightly")
    session.flush()
    newest, oldest = audit.entries(session)
    assert (newest.actor, newest.actor_id, newest.details) == ("beat", None, {})
    assert audit.entries(session, limit=1) == [newest]
    assert audit.entries(session, before=newest.id) == [oldest]
    shown = audit.public(oldest)
    assert shown == {
        "id": oldest.id,
        "at": oldest.at.isoformat(),
        "actor": "olga",
        "actor_id": str(olga.id),
        "action": "run.trigger",
        "target": "run:1",
        "details": {"task": "content.refresh_stats"},
    }
