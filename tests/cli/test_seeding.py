"""``demo seed`` leaves a collection that is consistent and can be recommended from."""

import pytest
from sqlalchemy import func, select

from genonaut.api.config import Settings
from genonaut.cli import seeding
from genonaut.cli.servers import database_of
from genonaut.clients.storage import LocalStorage, open_storage
from genonaut.core.planted import plant
from genonaut.db.models import ContentImage, ContentItem, GenerationJob, User, UserInteraction
from tests.support.database import TEMPLATE, new_database
from tests.support.objects import BUCKET, OPTIONS, object_server


@pytest.fixture
def seeded(session, tmp_path):
    """Seed twice, as an operator might; give the storage."""
    storage = LocalStorage(tmp_path, min_free_bytes=0)
    for number in (0, 1):
        data = plant(12, 30, 150, seed=number)
        taken = session.scalar(select(func.count()).select_from(User))
        ids = seeding._make_users(session, 12, after=taken)
        items = seeding._make_items(session, storage, data, ids, number)
        seeding._make_interactions(session, data, ids, items)
    return storage


def test_rows_belong_together_and_ids_go_on_behind_them(seeded, session):
    def count(table):
        return session.scalar(select(func.count()).select_from(table))

    assert [count(t) for t in (User, ContentItem, GenerationJob, ContentImage)] == [24, 60, 60, 60]
    assert count(UserInteraction) > 250
    joined = (
        select(func.count())
        .select_from(ContentItem)
        .join(GenerationJob, GenerationJob.content_id == ContentItem.id)
        .join(ContentImage, ContentImage.content_id == ContentItem.id)
        .where(
            GenerationJob.user_id == ContentItem.creator_id,
            GenerationJob.prompt == ContentItem.prompt,
            GenerationJob.status == "completed",
        )
    )
    assert session.scalar(joined) == 60
    assert all(seeded.exists(key) for key in session.scalars(select(ContentImage.storage_key)))
    more = ContentItem(title="x", creator_id=session.scalars(select(User.id)).first())
    session.add(more)
    session.flush()
    assert more.id > session.scalar(select(func.max(GenerationJob.content_id)))


def test_pictures_of_one_taste_have_words_in_common():
    import numpy as np

    random = np.random.default_rng(0)
    one, two, other = (seeding._prompt(taste, random)[0] for taste in (3, 3, 4))
    shared = {*one.split()} & {*two.split()}
    assert len(shared) > len({*one.split()} & {*other.split()})


def test_the_command_fills_an_environment(make_settings, postgres, monkeypatch, capsys):
    with new_database(postgres, template=TEMPLATE) as url:
        settings: Settings = make_settings(database_url_test=url)
        monkeypatch.setattr(seeding, "settings_for", lambda _: settings)
        seeding.seed(users=5, items=9, interactions=20, number=0, env="test")
        assert "5 users, 9 pictures" in capsys.readouterr().out
        assert any(settings.storage_path.rglob("*.png"))
    with pytest.raises(SystemExit):
        seeding.seed(users=1, items=1, interactions=0, number=0, env="prod")


def test_pictures_go_where_those_of_the_environment_are(make_settings, postgres, monkeypatch):
    with object_server() as store_url, new_database(postgres, template=TEMPLATE) as url:
        settings: Settings = make_settings(
            database_url_test=url,
            storage_url=f"s3://{BUCKET}/seeded",
            aws_endpoint_url=store_url,
            aws_access_key_id=OPTIONS["access_key_id"],
            aws_secret_access_key=OPTIONS["secret_access_key"],
        )
        monkeypatch.setattr(seeding, "settings_for", lambda _: settings)
        seeding.seed(users=2, items=3, interactions=5, number=0, env="test")
        with database_of(settings) as database, database.transaction() as session:
            named = set(session.scalars(select(ContentImage.storage_key)))
        assert set() < named <= {file.key for file in open_storage(settings).list_files()}
    assert not settings.storage_path.exists()
