"""A message has all it needs, and is not sent to those who do not want it any more."""

from datetime import UTC, datetime, time

import pytest
from sqlalchemy import update

from genonaut.db.models import ContentImage, ContentItem, NotificationAddress, User
from genonaut.domain import lanes, notifications, parcels, preference_writing
from genonaut.domain.parcels import Picture
from genonaut.domain.preferences import Preferences
from genonaut.domain.quiet import QuietHours


@pytest.fixture
def load(session):
    def take(row):
        held = lanes.claim_lane(session, row.id, worker="w", lease_s=30, limit=20)
        return parcels.load(session, held)

    return take


def test_a_parcel_names_its_address_user_facts_and_picture(
    session, load, make_user, make_address, make_delivery
):
    ada = make_user(username="ada")
    item = ContentItem(title="t", creator_id=ada.id)
    session.add(item)
    session.flush()
    made = {"256": {"key": "ab/cd/x.webp", "width": 256, "height": 128, "bytes": 9}}
    facts = {"storage_key": "k", "sha256": "0" * 64, "mime": "image/png", "bytes": 1}
    size = {"width": 1, "height": 1}
    session.add(ContentImage(content_id=item.id, position=0, thumbnails=made, **facts, **size))
    session.flush()
    row = make_delivery(make_address(ada), data={"content_id": item.id})
    (parcel,) = load(row)
    assert (parcel.username, parcel.address.address) == ("ada", "ada@example.org")
    assert [told.title for told in parcel.notifications] == ["Hello"]
    assert parcel.picture == Picture("ab/cd/x.webp", 256, 128)
    assert parcels.refusal(parcel) is None


def changed(session, model, row_id, **values) -> None:
    session.execute(update(model).where(model.id == row_id).values(values))
    session.expire_all()


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({"disabled_at": datetime.now(UTC), "disabled_reason": "x"}, "address_disabled"),
        ({"verified_at": None}, "address_unverified"),
    ],
)
def test_an_address_out_of_use_gets_its_check_and_nothing_else(
    session, load, make_address, make_delivery, columns, code
):
    address = make_address()
    rows = [make_delivery(address), make_delivery(address, purpose="verification")]
    changed(session, NotificationAddress, address.id, **columns)
    news, check = load(rows[0])
    assert parcels.refusal(news)[0] == code
    assert parcels.refusal(check) is None


def test_what_is_not_wanted_any_more_or_deleted_is_not_sent(
    session, load, make_address, make_delivery
):
    address = make_address()
    muted = make_delivery(address)
    empty = make_delivery(address, purpose="digest")
    test = make_delivery(address, purpose="test")
    wanted = Preferences({"system": {"email": False}})
    preference_writing.save(session, address.user_id, wanted, channels=["email"])
    codes = [parcels.refusal(parcel) for parcel in load(muted)]
    assert [code and code[0] for code in codes] == ["not_wanted", "nothing_to_tell", None]
    assert empty.id < test.id


def test_a_closed_account_and_a_lost_address_stand_for_themselves(
    session, load, make_address, make_delivery
):
    closed = make_address()
    row = make_delivery(closed)
    changed(session, User, closed.user_id, is_active=False)
    (found,) = load(row)
    assert found.id == row.id
    assert parcels.refusal(found)[0] == "address_gone"


def test_a_digest_names_what_it_was_planned_for(session, load, make_address, make_delivery):
    address = make_address()
    news = [make_delivery(address) for _ in range(3)]
    ids = [row.notification_id for row in news[:2]]
    digest = make_delivery(
        address, purpose="digest", data={"notification_ids": ids, "total": 9}, notification_id=None
    )
    changed(session, type(digest), digest.id, data={"notification_ids": ids, "total": 9})
    found = {parcel.delivery.id: parcel for parcel in load(digest)}[digest.id]
    assert [told.id for told in found.notifications] == ids
    assert found.total == 9
    notifications.delete(session, address.user_id, ids[0])


def test_a_check_knows_no_quiet_hours(load, make_address, make_delivery):
    address = make_address()
    rows = [make_delivery(address), make_delivery(address, purpose="verification")]
    night = Preferences(quiet=QuietHours(time(22), time(7)))
    at = datetime(2026, 1, 5, 23, tzinfo=UTC)
    for parcel, until in zip(
        load(rows[0]), (datetime(2026, 1, 6, 7, tzinfo=UTC), None), strict=True
    ):
        object.__setattr__(parcel, "wanted", night)
        assert parcels.quiet_until(parcel, at) == until
