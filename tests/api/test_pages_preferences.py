"""The page of preferences."""

import re

from genonaut.domain import preferences
from genonaut.domain.users import find_user

FORM = {
    "wants": ["job_completed:in_app", "system:in_app", "recommendation:email"],
    "timezone": "Europe/Berlin",
    "quiet_from": "22:00",
    "quiet_until": "07:00",
    "digest": "daily",
    "digest_hour": "9",
    "group_window_s": "60",
}


def test_what_is_chosen_is_kept_and_shown_again(visit, act, database):
    ada = visit("ada")
    page = act(ada, "/preferences", **FORM)
    assert "are kept" in page.text
    assert 'value="Europe/Berlin"' in page.text
    with database.transaction() as session:
        kept = preferences.read(session, find_user(session, "ada").id)
    assert (kept.is_daily, kept.digest_hour, kept.group_window_s) == (True, 9, 60)
    assert kept.wants("recommendation", "email")
    assert not kept.wants("job_failed", "in_app")


def test_what_is_wrong_is_told_at_its_field_and_nothing_is_kept(visit, act, database):
    ada = visit("ada")
    page = act(ada, "/preferences", **{**FORM, "timezone": "Nowhere/At_All", "digest_hour": "99"})
    assert page.status_code == 422
    assert 'id="error-timezone"' in page.text
    assert 'id="error-digest_hour"' in page.text
    assert 'value="Nowhere/At_All"' in page.text
    alone = act(ada, "/preferences", **{**FORM, "quiet_until": ""})
    assert "come together" in alone.text
    assert "Must be an IANA time zone" in page.text  # names within a sentence keep their letters
    with database.transaction() as session:
        assert preferences.read(session, find_user(session, "ada").id).timezone == "UTC"


def test_what_was_ticked_is_still_ticked_when_something_else_is_wrong(visit, act):
    ada = visit("ada")
    page = act(ada, "/preferences", **{**FORM, "quiet_until": ""})
    assert page.status_code == 422
    ticked = set(re.findall(r'name="wants" value="([^"]+)"[^>]*checked', page.text))
    assert ticked == set(FORM["wants"])


def test_addresses_are_given_checked_and_taken_away(visit, act):
    ada = visit("ada")
    wrong = act(ada, "/preferences/webhook/address", address="ftp://example.org")
    assert wrong.status_code in {409, 422}
    if wrong.status_code == 422:
        assert 'value="ftp://example.org"' in wrong.text
    assert ada.get("/preferences/webhook/address").headers["location"] == "/preferences"
    assert act(ada, "/preferences/pigeon/address", address="x").status_code == 404
    assert act(ada, "/preferences/email/remove").status_code == 404
    assert act(ada, "/preferences/email/blow-up").status_code == 404
