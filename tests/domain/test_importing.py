"""Imported pictures become items, each once per creator."""

import threading

import pytest
from sqlalchemy import func, select

from genonaut.core.embedded_graph import Made
from genonaut.db.models import ContentImage, ContentItem
from genonaut.domain.importing import Imported, add


def picture(n=1, *, made=None, path="trip/fox_01.png"):
    digest = f"{n:064x}"
    key = f"{digest[:2]}/{digest[2:4]}/{digest}.png"
    return Imported(key, "image/png", 8, 6, 100, made or Made(), path)


@pytest.fixture
def items(session):
    def read():
        return list(session.scalars(select(ContentItem).order_by(ContentItem.id)))

    return read


def test_a_picture_becomes_an_item_with_what_its_file_said(session, make_user, items):
    ada = make_user()
    made = Made("a  fox\nin snow", "blurry", {"seed": 7, "model": "x"})
    assert add(session, [picture(made=made), picture(2)], ada.id, is_private=True) == 2
    told, untold = items()
    assert (told.title, told.prompt, told.is_private) == ("a fox in snow", made.prompt, True)
    assert told.item_metadata == {
        "imported_from": "trip/fox_01.png",
        "negative_prompt": "blurry",
        "seed": 7,
        "model": "x",
    }
    assert (untold.title, untold.prompt) == ("fox_01", None)
    image = session.scalars(select(ContentImage)).first()
    assert (image.sha256, image.position, image.thumbnails) == (f"{1:064x}", 0, {})
    assert (image.thumb_spec, image.thumb_error) == (None, None)


def test_what_a_creator_has_is_left_out_and_another_gets_it(session, make_user, items):
    ada, bob = make_user(), make_user()
    assert add(session, [picture(1), picture(1)], ada.id, is_private=False) == 1
    assert add(session, [picture(1), picture(2)], ada.id, is_private=False) == 1
    assert add(session, [picture(1)], bob.id, is_private=False) == 1
    assert len(items()) == 3


def test_names_from_the_disk_are_made_fit(session, make_user, items):
    path = "x" * 2000 + "/\udcff\0.png"
    add(session, [picture(path=path, made=Made("w" * 200))], make_user().id, is_private=False)
    [item] = items()
    assert len(item.title) == 80
    assert len(item.item_metadata["imported_from"]) == 1000


def test_two_imports_at_once_make_one_item_each(committed_database, make_user):
    ada = make_user()
    pictures = [picture(n) for n in range(20)]
    gate = threading.Barrier(2)

    def go(ordered):
        gate.wait(5)
        for start in range(0, 20, 5):
            with committed_database.transaction() as session:
                add(session, ordered[start : start + 5], ada.id, is_private=False)

    threads = [threading.Thread(target=go, args=(order,)) for order in (pictures, pictures[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    with committed_database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(ContentItem)) == 20
