"""Thumbnails: the best one the client takes, made while somebody waits, and how many there are."""

import threading

import pytest
from sqlalchemy import select

from genonaut.clients.storage import LocalStorage
from genonaut.db.models import ContentImage, ContentItem, TaskRun
from genonaut.domain.users import Role

CONTENT = "/api/v1/content"
STATE = "/api/v1/admin/thumbnails"
BYTES = {"webp": b"webp bytes", "avif": b"avif bytes", "jpeg": b"jpeg bytes"}


@pytest.fixture
def storage(api) -> LocalStorage:
    return LocalStorage(api.settings.storage_path, min_free_bytes=0)


@pytest.fixture
def eve(make_account):
    return make_account("eve", Role.AUDITOR)


@pytest.fixture
def make_item(database, storage):
    def make(owner, formats=(), **columns) -> int:
        entries = {}
        for form in formats:
            key = storage.put(BYTES[form], mime=f"image/{form}")
            name = "512" if form == "webp" else f"512.{form}"
            entries[name] = {"key": key, "width": 64, "height": 48, "bytes": 10}
        with database.transaction() as session:
            item = ContentItem(title="x", prompt="x", creator_id=owner.id)
            session.add(item)
            session.flush()
            values = {
                "storage_key": storage.put(b"original", mime="image/png"),
                "sha256": "0" * 64,
                "mime": "image/png",
                "width": 1024,
                "height": 768,
                "bytes": 8,
                "position": 0,
                "thumbnails": entries,
            }
            session.add(ContentImage(content_id=item.id, **{**values, **columns}))
            return item.id

    return make


@pytest.fixture
def making(database):
    def read():
        with database.transaction() as session:
            return list(session.scalars(select(TaskRun).where(TaskRun.task == "thumbnails.make")))

    return read


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("image/avif,image/webp,*/*;q=0.8", "avif"),
        ("image/webp,*/*;q=0.8", "webp"),
        ("image/jpeg", "jpeg"),
        ("*/*", "webp"),
    ],
)
def test_the_client_gets_the_best_it_takes(ada, make_item, accept, form):
    item = make_item(ada, formats=("webp", "avif", "jpeg"))
    for path in (f"{CONTENT}/{item}/images/0/thumbnails/512", f"{CONTENT}/{item}/thumbnails/512"):
        answer = ada.client.get(path, headers={"Accept": accept})
        assert (answer.status_code, answer.content) == (200, BYTES[form])
        assert answer.headers["content-type"] == f"image/{form}"
        assert answer.headers["vary"].startswith("Accept, ")


def test_each_format_has_a_tag_of_its_own_and_one_address_that_never_changes(ada, make_item):
    item = make_item(ada, formats=("webp", "avif"))
    shown = ada.client.get(f"{CONTENT}/{item}").json()["images"][0]["thumbnails"]
    assert shown["512"]["types"] == ["image/avif", "image/webp"]
    tags = {}
    for form in ("webp", "avif"):
        answer = ada.client.get(shown["512"]["url"], headers={"Accept": f"image/{form}"})
        assert "immutable" in answer.headers["cache-control"]
        tags[form] = answer.headers["etag"]
    assert tags["webp"] != tags["avif"]
    headers = {"Accept": "image/avif", "If-None-Match": tags["avif"]}
    assert ada.client.get(shown["512"]["url"], headers=headers).status_code == 304
    headers["If-None-Match"] = tags["webp"]
    assert ada.client.get(shown["512"]["url"], headers=headers).status_code == 200
    part = ada.client.get(shown["512"]["url"], headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"webp")


def test_a_missing_one_is_made_once_and_shown_as_a_field_meanwhile(ada, make_item, making, api):
    item = make_item(ada)
    url = f"{CONTENT}/{item}/thumbnails/512"
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(ada.client.get(url))) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    for answer in answers:
        assert (answer.status_code, answer.headers["retry-after"]) == (202, "2")
        assert answer.headers["content-type"].startswith("image/svg+xml")
        assert answer.headers["cache-control"] == "no-store"
        assert 'width="512" height="384"' in answer.text
    assert len(answers) == 5
    [run] = making()
    assert (run.status, run.trigger, run.queue) == ("pending", "system", "default")
    assert any(event.kind == "run" and event.id == run.id for event in api.dispatched.events)


@pytest.mark.parametrize("error", [None, "broken"])
def test_a_lost_file_is_made_anew(ada, make_item, making, storage, database, error):
    item = make_item(ada, formats=("webp",), thumb_spec="x", thumb_error=error)
    url = f"{CONTENT}/{item}/thumbnails/512"
    with database.transaction() as session:
        [entries] = session.scalars(select(ContentImage.thumbnails))
    storage.delete(entries["512"]["key"])
    assert [ada.client.get(url).status_code for _ in range(2)] == [202, 202]
    assert len(making()) == 1
    with database.transaction() as session:
        left = session.execute(select(ContentImage.thumb_spec, ContentImage.thumb_error)).one()
    assert left == (None, None)


def test_what_cannot_be_made_is_not_queued(ada, bob, make_item, making):
    item = make_item(ada, thumb_error="broken")
    for path in (f"{item}/thumbnails/512", f"{item}/thumbnails/300", "99/thumbnails/512"):
        assert ada.client.get(f"{CONTENT}/{path}").status_code == 404
    assert making() == []


def test_a_size_that_new_settings_want_is_made_of_an_old_picture(ada, make_item, making):
    item = make_item(ada, formats=("webp",), thumb_spec="older")
    assert ada.client.get(f"{CONTENT}/{item}/thumbnails/512").status_code == 200
    assert ada.client.get(f"{CONTENT}/{item}/thumbnails/256").status_code == 202
    assert len(making()) == 1


def test_auditors_see_where_thumbnails_stand(ada, eve, make_item):
    make_item(ada)
    make_item(ada, formats=("webp",), thumb_spec="older")
    assert ada.client.get(STATE).status_code == 403
    state = eve.client.get(STATE).json()
    assert state["images"] == 2
    assert (state["missing"], state["outdated"], state["current"], state["failed"]) == (1, 1, 0, 0)
    assert state["specs"] == [{"spec": "older", "images": 1, "is_usual": False}]
    assert state["usual"]["sizes"] == [512, 256]
