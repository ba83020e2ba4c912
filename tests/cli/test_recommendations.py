"""``genonaut recommendations`` shows how good lists were, and goes back to those before."""

import json

import pytest
from sqlalchemy import func, select

from genonaut.cli.recommendations import _state
from genonaut.db.session import Database
from genonaut.domain import recommendation_generations as generations

SCORE = {"recall": 0.35961, "ndcg": 0.2, "popular_recall": 0.05, "users": 9, "coverage": 0.4}


@pytest.fixture
def make(running):
    """Make a generation, switched in unless it is refused."""
    url = running.variables["DATABASE_URL_DEV"].replace("postgresql://", "postgresql+psycopg2://")
    database = Database.connect(url, pool_size=1)

    def one(*, refused=None, evaluation=SCORE):
        with database.transaction() as session:
            number = generations.begin(
                session,
                run_id=None,
                algorithm="x",
                as_of=session.scalars(select(func.now())).one(),
                fingerprint={},
                evaluation=evaluation,
                refused=refused,
            )
            if refused is None:
                generations.switch(session, number, users=3, rows=150)
        return number

    yield one
    database.close()


def test_generations_are_listed_and_one_goes_back(running, make):
    assert running.refusal("recommendations", "rollback")
    first, second = make(), make(evaluation=None)
    refused = make(refused="NDCG@20 fell")
    table = running("recommendations", "list").stdout.splitlines()
    rows = {int(line.split()[0]): line for line in table[1:]}
    assert list(rows) == [refused, second, first], "newest first"
    assert "0.3596" in rows[first]
    assert "0.2000" in rows[first]
    assert rows[first].endswith("kept")
    assert rows[second].endswith("current")
    assert rows[refused].endswith("refused")
    assert len(running("recommendations", "list", "--limit", "1").stdout.splitlines()) == 2

    said = running("recommendations", "rollback").stdout
    assert said == f"everyone sees the lists of generation {first} again\n"
    listed = json.loads(running("recommendations", "list", "--json").stdout)
    assert [row["id"] for row in listed if row["is_current"]] == [first]
    assert "\n" not in running.refusal("recommendations", "rollback"), "there is none before it"

    make()
    assert json.loads(running("recommendations", "rollback", "--json").stdout)["id"] == first


def test_what_was_asked_for_wrongly_is_said_in_one_line(running):
    assert "--limit" in running("recommendations", "list", "--limit", "0", status=2).stderr
    assert "prod" in running.refusal("recommendations", "list", "--env", "prod", status=2)


@pytest.mark.parametrize(
    ("row", "state"),
    [
        ({"is_current": True}, "current"),
        ({"refused": "it fell"}, "refused"),
        ({"is_kept": True}, "kept"),
        ({"switched_at": "2026-11-01T00:00:00+00:00"}, "removed"),
        ({}, "not finished"),
    ],
)
def test_a_generation_has_a_state(row, state):
    usual = {"is_current": False, "refused": None, "is_kept": False, "switched_at": None}
    assert _state({**usual, **row}) == state
