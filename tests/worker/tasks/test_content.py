"""``content.refresh_stats`` counts and says how much; ``test_stats.py`` has the rules."""

from genonaut.worker.tasks.content import Result, refresh_stats


def test_it_counts_and_counts_again(run_task, database, make_user):
    from genonaut.db.models import ContentItem

    ada = make_user()
    with database.transaction() as session:
        session.add(ContentItem(title="x", prompt="x", creator_id=ada.id))
    for days in (None, 7):
        result, _ = run_task(refresh_stats, days=days)
        assert result == Result(rows=1)
