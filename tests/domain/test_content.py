"""Who sees what, and what deleting leaves."""

from datetime import date, datetime
from uuid import uuid4

import pytest
from sqlalchemy import select

from genonaut.core.errors import ForbiddenError, InvalidInputError, NotFoundError
from genonaut.db.models import ContentImage, ContentItem, GenerationJob
from genonaut.domain import content, users
from genonaut.domain.content import Filter

pytestmark = pytest.mark.usefixtures("committed_database")


@pytest.fixture
def people(database):
    with database.transaction() as session:
        return [users.create_user(session, name).id for name in ("ada", "bob")]


@pytest.fixture
def make_item(database, people):
    def make(owner=0, *, private=False, prompt="a cat", hashes=("a",), model=None) -> int:
        with database.transaction() as session:
            item = ContentItem(
                title=prompt, prompt=prompt, creator_id=people[owner], is_private=private
            )
            session.add(item)
            session.flush()
            for position, letter in enumerate(hashes):
                session.add(
                    ContentImage(
                        content_id=item.id,
                        position=position,
                        storage_key=f"full-{letter}",
                        sha256=letter * 64,
                        mime="image/png",
                        width=64,
                        height=64,
                        bytes=9,
                        thumbnails={"256": {"key": f"thumb-{letter}"}},
                    )
                )
            if model:
                session.add(
                    GenerationJob(
                        user_id=people[owner],
                        prompt=prompt,
                        status="completed",
                        content_id=item.id,
                        checkpoint_model=model,
                        celery_task_id=str(uuid4()),
                    )
                )
            return item.id

    return make


def test_public_items_are_for_everyone_and_private_ones_for_their_creator(
    session, people, make_item
):
    public, own, other = make_item(1), make_item(0, private=True), make_item(1, private=True)
    listed = [item.id for item in content.list_visible(session, people[0], Filter())]
    assert listed == [own, public]
    assert [i.id for i in content.list_visible(session, people[0], Filter(mine=True))] == [own]
    assert content.visible(session, people[0], own).id == own
    assert content.visible_image(session, people[0], public, 0).sha256 == "a" * 64
    for hidden in (other, 10**9):
        with pytest.raises(NotFoundError):
            content.visible(session, people[0], hidden)
        with pytest.raises(NotFoundError):
            content.visible_image(session, people[0], hidden, 0)
    with pytest.raises(NotFoundError):
        content.visible_image(session, people[0], public, 1)


def test_filters_narrow_and_wildcards_in_the_text_are_plain_characters(session, people, make_item):
    make_item(prompt="a dog", model="m.safetensors")
    percent = make_item(prompt="100% CAT")
    modelled = make_item(prompt="a cat", model="m.safetensors")

    def found(**wanted) -> list[int]:
        return [i.id for i in content.list_visible(session, people[0], Filter(**wanted))]

    assert found(text="cat") == [modelled, percent]
    assert found(text="%") == [percent]
    assert found(text="_") == []
    assert found(text="cat", model="m.safetensors") == [modelled]
    assert found(model="other") == []


def test_pages_follow_each_other_without_gap_or_overlap(session, people, make_item):
    made = [make_item() for _ in range(7)]
    seen: list[int] = []
    before = None
    while page := content.list_visible(session, people[0], Filter(), before=before, limit=3):
        seen += [item.id for item in page]
        before = page[-1].id
    assert seen == made[::-1]
    images = content.images_of(session, content.list_visible(session, people[0], Filter()))
    assert {len(found) for found in images.values()} == {1}
    assert content.images_of(session, []) == {}


def test_deleting_gives_the_originals_no_other_item_has(database, people, make_item):
    item = make_item(hashes=("a", "b"), model="m")
    make_item(1, private=True, hashes=("b",))
    with database.transaction() as session:
        unused = content.delete_own(session, people[0], item)
    assert {u.storage_key for u in unused} == {"full-a"}
    with database.transaction() as session:
        assert session.scalars(select(GenerationJob.content_id)).one() is None
        assert len(session.scalars(select(ContentImage)).all()) == 1


def test_only_the_creator_deletes_and_others_do_not_learn_of_private_items(
    session, people, make_item
):
    with pytest.raises(ForbiddenError):
        content.delete_own(session, people[0], make_item(1))
    with pytest.raises(NotFoundError):
        content.delete_own(session, people[0], make_item(1, private=True))


def test_days_are_of_utc_and_the_last_one_counts_in_full(session, people, make_item, database):
    made = {}
    for at in ("2026-03-01 00:00", "2026-03-02 00:00", "2026-03-02 23:59:59.999", "2026-03-03"):
        made[at] = make_item()
        with database.transaction() as writing:
            writing.get(ContentItem, made[at]).created_at = datetime.fromisoformat(f"{at}+00:00")

    def found(**days: str) -> list[int]:
        wanted = Filter(**{name: date.fromisoformat(day) for name, day in days.items()})
        return sorted(item.id for item in content.list_visible(session, people[0], wanted))

    first, begin, end, last = sorted(made.values())
    assert found(since="2026-03-02", until="2026-03-02") == [begin, end]
    assert found(since="2026-03-02") == [begin, end, last]
    assert found(until="2026-03-02") == [first, begin, end]
    assert found(since="0001-01-01", until="9999-12-31") == [first, begin, end, last]
    with pytest.raises(InvalidInputError):
        found(since="2026-03-03", until="2026-03-02")
