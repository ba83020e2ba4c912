"""Items and pictures over HTTP: who sees them, how they are cached, what deleting leaves."""

import socket
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import update

from genonaut.clients.storage import LocalStorage
from genonaut.db.models import ContentImage, ContentItem

CONTENT = "/api/v1/content"
FULL, SMALL = bytes(range(256)) * 1200, b"small" * 20


@pytest.fixture
def storage(api) -> LocalStorage:
    return LocalStorage(api.settings.storage_path, min_free_bytes=0)


@pytest.fixture
def make_item(database, storage):
    def make(owner, *, private=False, prompt="a cat", data=FULL) -> int:
        key = storage.put(data, mime="image/png")
        small = storage.put(SMALL + data[:9], mime="image/webp")
        with database.transaction() as session:
            item = ContentItem(title=prompt, prompt=prompt, creator_id=owner.id, is_private=private)
            session.add(item)
            session.flush()
            session.add(
                ContentImage(
                    content_id=item.id,
                    position=0,
                    storage_key=key,
                    sha256=key[6:70],
                    mime="image/png",
                    width=64,
                    height=64,
                    bytes=len(data),
                    thumbnails={
                        "256": {"key": small, "width": 64, "height": 64, "bytes": len(SMALL) + 9}
                    },
                )
            )
            return item.id

    return make


def test_public_items_are_listed_for_everyone_and_private_ones_for_their_creator(
    ada, bob, make_item
):
    public, private = make_item(ada), make_item(ada, private=True)
    assert [i["id"] for i in ada.client.get(CONTENT).json()["items"]] == [private, public]
    seen = bob.client.get(CONTENT).json()["items"]
    assert [(i["id"], i["is_mine"]) for i in seen] == [(public, False)]
    assert bob.client.get(CONTENT, params={"mine": True}).json()["items"] == []
    assert bob.client.get(CONTENT, params={"q": "dog"}).json()["items"] == []
    page = ada.client.get(CONTENT, params={"limit": 1, "q": "cat"})
    following = ada.client.get(page.links["next"]["url"]).json()
    assert ([i["id"] for i in following["items"]], following["next_cursor"]) == ([public], None)
    image = f"{CONTENT}/{private}/images/0"
    for path in (f"{CONTENT}/{private}", image, f"{image}/thumbnails/256", f"{CONTENT}/99"):
        assert ada.client.get(path).status_code == (404 if path.endswith("99") else 200)
        assert bob.client.get(path).status_code == 404


def test_a_store_that_hangs_keeps_pictures_waiting_and_nothing_else(
    serve, api_settings, ada, make_item
):
    item = make_item(ada)
    authorized = {"Authorization": f"Bearer {ada.token}"}
    with socket.create_server(("127.0.0.1", 0), backlog=128) as hanging:
        there = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
        api = serve(api_settings(storage_url="s3://pictures", aws_endpoint_url=there, **keys))

        def ask(path: str) -> int | None:
            with suppress(httpx.ReadTimeout):
                return client.get(path, headers=authorized).status_code

        limits = httpx.Limits(max_connections=None)
        with (
            httpx.Client(base_url=api.url, timeout=12, limits=limits) as client,
            ThreadPoolExecutor(40) as pool,
        ):
            paths = [f"{CONTENT}/{item}/images/0", f"{CONTENT}/{item}/thumbnails/256"] * 20
            pictures = [pool.submit(ask, path) for path in paths]
            wait(pictures, timeout=1)
            others = [ask("/api/v1/me") for _ in range(5)]
            assert not any(picture.done() for picture in pictures)
        assert others == [200] * 5
        assert [picture.result() for picture in pictures] == [None] * 40


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ({"backend": "http://10.0.0.7:8188", "prompt_id": "p", "seed": 4}, {"seed": 4}),
        ({"steps": {"backend": "x"}, "model": "m"}, {"model": "m"}),
        ([1, 2], {}),
    ],
)
def test_metadata_is_a_chosen_part(ada, bob, make_item, database, stored, shown):
    item = make_item(ada)
    with database.transaction() as session:
        session.execute(update(ContentItem).values(item_metadata=stored))
    for who in (ada, bob):
        assert who.client.get(f"{CONTENT}/{item}").json()["metadata"] == shown
        assert who.client.get(CONTENT).json()["items"][0]["metadata"] == shown


def test_a_picture_is_sent_whole_with_what_a_browser_needs_to_keep_it(ada, make_item):
    item = ada.client.get(f"{CONTENT}/{make_item(ada)}").json()
    image = item["images"][0]
    answer = ada.client.get(image["url"])
    assert answer.content == FULL
    assert answer.headers["etag"] == f'"{image["sha256"]}"'
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert answer.headers["vary"] == "Authorization, Cookie"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"] == (
        f'inline; filename="genonaut-{item["id"]}-0.png"'
    )
    head = ada.client.head(image["url"])
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(FULL))


def test_a_picture_the_client_has_is_not_sent_again(ada, make_item, storage):
    url = f"{CONTENT}/{make_item(ada)}/images/0"
    etag = ada.client.get(url).headers["etag"]
    for given in (etag, f'"x", W/{etag}', "*"):
        answer = ada.client.get(url, headers={"If-None-Match": given})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == etag
    assert ada.client.get(url, headers={"If-None-Match": '"x"'}).status_code == 200


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=5-9", 5, 9),
        ("bytes=300000-", 300_000, len(FULL) - 1),
        ("bytes=-7", len(FULL) - 7, len(FULL) - 1),
        ("bytes=0-99999999", 0, len(FULL) - 1),
    ],
)
def test_a_range_is_sent_alone(ada, make_item, wanted, first, last):
    url = f"{CONTENT}/{make_item(ada)}/images/0"
    answer = ada.client.get(url, headers={"Range": wanted})
    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(FULL)}"
    assert answer.content == FULL[first : last + 1]


def test_ranges_outside_are_416_and_strange_ones_are_ignored(ada, make_item):
    url = f"{CONTENT}/{make_item(ada)}/images/0"
    for wanted in (f"bytes={len(FULL)}-", "bytes=-0"):
        answer = ada.client.get(url, headers={"Range": wanted})
        assert answer.status_code == 416
        assert answer.headers["content-range"] == f"bytes */{len(FULL)}"
        assert answer.headers["content-type"] == "application/problem+json"
    for wanted in ("bytes=0-1,3-4", "bytes=9-5", "rows=1-2", "bytes=-", "bytes=" + "9" * 200):
        assert ada.client.get(url, headers={"Range": wanted}).status_code == 200
    stale = {"Range": "bytes=0-1", "If-Range": '"other"'}
    assert ada.client.get(url, headers=stale).status_code == 200


def test_a_thumbnail_is_kept_for_long_only_under_its_versioned_address(ada, make_item):
    item = make_item(ada)
    made = ada.client.get(f"{CONTENT}/{item}").json()["images"][0]["thumbnails"]["256"]
    answer = ada.client.get(made["url"])
    assert (answer.content, answer.headers["content-type"]) == (SMALL + FULL[:9], "image/webp")
    assert "immutable" in answer.headers["cache-control"]
    plain = ada.client.get(made["url"].partition("?")[0])
    assert "immutable" not in plain.headers["cache-control"]
    assert ada.client.get(f"{CONTENT}/{item}/images/0/thumbnails/300").status_code == 404
    assert ada.client.get(f"{CONTENT}/{item}/images/1").status_code == 404


def test_deleting_removes_row_and_files_that_nobody_else_has(ada, bob, make_item, storage):
    own, shared, others = make_item(ada, data=b"own"), make_item(ada), make_item(bob)
    keys = {}
    for item in (own, shared):
        image = ada.client.get(f"{CONTENT}/{item}").json()["images"][0]
        keys[item] = f"{image['sha256'][:2]}/{image['sha256'][2:4]}/{image['sha256']}.png"
    assert ada.client.delete(f"{CONTENT}/{others}").status_code == 403
    for item in (own, shared):
        assert ada.client.delete(f"{CONTENT}/{item}").status_code == 204
        assert ada.client.delete(f"{CONTENT}/{item}").status_code == 404
    assert not storage.exists(keys[own])
    assert storage.exists(keys[shared])
    assert bob.client.get(f"{CONTENT}/{others}/images/0").content == FULL


def test_deleting_leaves_a_thumbnail_that_another_original_shares(ada, bob, make_item):
    # The same first bytes make the same thumbnail of another original.
    own, others = make_item(ada, data=FULL + b"1"), make_item(bob, data=FULL + b"2")
    assert ada.client.delete(f"{CONTENT}/{own}").status_code == 204
    thumbnail = bob.client.get(f"{CONTENT}/{others}/images/0/thumbnails/256")
    assert (thumbnail.status_code, thumbnail.content) == (200, SMALL + FULL[:9])


def test_deleting_leaves_a_file_that_was_stored_again_meanwhile(ada, make_item, storage, database):
    item = make_item(ada, data=b"again")
    sha = ada.client.get(f"{CONTENT}/{item}").json()["images"][0]["sha256"]
    with database.transaction() as session:
        earlier = datetime.now(UTC) - timedelta(minutes=1)
        session.execute(update(ContentImage).values(created_at=earlier))
    ada.client.delete(f"{CONTENT}/{item}")
    assert storage.exists(f"{sha[:2]}/{sha[2:4]}/{sha}.png")


def test_a_picture_whose_file_is_gone_is_a_404(ada, make_item, storage):
    item = make_item(ada, data=b"gone")
    image = ada.client.get(f"{CONTENT}/{item}").json()["images"][0]
    sha = image["sha256"]
    storage.delete(f"{sha[:2]}/{sha[2:4]}/{sha}.png")
    assert ada.client.get(image["url"]).status_code == 404


def test_items_tell_what_the_caller_thinks_of_them(ada, bob, make_item, queries):
    first, other = make_item(bob), make_item(bob)
    for body in ({"kind": "like"}, {"kind": "rate", "rating": 4}, {"kind": "view"}):
        ada.client.post(f"{CONTENT}/{first}/interactions", json=body)
    ada.client.post(f"{CONTENT}/{other}/interactions", json={"kind": "like"})
    ada.client.post(f"{CONTENT}/{other}/interactions", json={"kind": "unlike"})

    def opinions(account, **asked):
        items = account.client.get(CONTENT, params=asked).json()["items"]
        return [(item["id"], item["liked"], item["rating"]) for item in items]

    assert opinions(ada) == [(other, False, None), (first, True, 4)]
    assert opinions(ada, liked=True) == [(first, True, 4)]
    assert opinions(bob) == [(other, False, None), (first, False, None)]
    assert ada.client.get(f"{CONTENT}/{first}").json()["rating"] == 4
    few = queries(lambda: ada.client.get(CONTENT))
    for _ in range(5):
        make_item(bob)
    assert queries(lambda: ada.client.get(CONTENT)) == few


def test_items_are_narrowed_to_days(ada, make_item, database):
    item = make_item(ada)
    with database.transaction() as session:
        session.get(ContentItem, item).created_at = datetime(2026, 3, 28, 23, 59, tzinfo=UTC)

    def found(**days: str) -> list[int]:
        items = ada.client.get(CONTENT, params=days).json()["items"]
        return [one["id"] for one in items]

    assert found(since="2026-03-28", until="2026-03-28") == [item]
    assert found(since="2026-03-29") == found(until="2026-03-27") == []
    for days, field in (
        ({"since": "yesterday"}, "since"),
        ({"since": "5"}, "since"),
        ({"until": "2026-02-30"}, "until"),
        ({"since": "2026-03-28", "until": "2026-03-27"}, "until"),
    ):
        refused = ada.client.get(CONTENT, params=days)
        assert refused.status_code == 422
        assert field in refused.text
