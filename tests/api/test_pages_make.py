"""The page that asks for pictures: its form, what it refuses, and the cards of jobs."""

import re
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, event

from genonaut.db.models import GenerationJob
from genonaut.domain import attempts
from genonaut.domain.attempts import StoredImage
from tests.api.test_pages import INLINE, csrf_of

FORM = {
    "prompt": "a lighthouse",
    "size": "768x512",
    "batch_size": "2",
    "steps": "12",
    "cfg": "6.5",
    "is_private": "1",
    "lora_name": ["ink", ""],
    "lora_strength_model": ["0.5", "1"],
    "lora_strength_clip": ["0.75", "1"],
}


@pytest.fixture
def browser(visit):
    return visit("ada")


@pytest.fixture
def queries(api):
    """Collect the statements of this process, which the API shares."""

    @contextmanager
    def collect():
        seen = []

        def note(_connection, _cursor, statement, *_rest):
            seen.append(statement)

        event.listen(Engine, "before_cursor_execute", note)
        try:
            yield seen
        finally:
            event.remove(Engine, "before_cursor_execute", note)

    return collect


def ask(browser, **fields):
    data = {"csrf": csrf_of(browser.get("/")), **FORM, **fields}
    return browser.post("/make", data=data)


def jobs_of(browser):
    return browser.get("/api/v1/generation-jobs").json()["items"]


def value_of(page, name):
    return re.search(rf'name="{name}" value="([^"]*)"', page.text).group(1)


def test_what_the_form_says_is_what_is_asked_for(browser):
    asked = ask(browser)
    assert (asked.status_code, asked.headers["location"]) == (303, "/")
    (job,) = jobs_of(browser)
    assert (job["prompt"], job["width"], job["height"], job["batch_size"]) == (
        "a lighthouse",
        768,
        512,
        2,
    )
    assert job["is_private"]
    assert (job["sampler_params"]["steps"], job["sampler_params"]["cfg"]) == (12, 6.5)
    assert job["lora_models"] == [{"name": "ink", "strength_model": 0.5, "strength_clip": 0.75}]
    page = browser.get("/")
    assert "Asked for." in page.text
    assert "ComfyUI does not answer" in page.text
    assert "waiting, place 1" in page.text
    assert not INLINE.search(page.text)


def test_settings_are_remembered_and_prompt_and_seed_are_those_of_the_job_that_is_liked(browser):
    ask(browser, seed="77", size="own", width="640", height="320")
    page = browser.get("/")
    assert (value_of(page, "width"), value_of(page, "steps")) == ("640", "12")
    assert value_of(page, "seed") == ""
    assert 'value="own" checked' in page.text
    (job,) = jobs_of(browser)
    like = browser.get("/", params={"like": job["id"]})
    assert value_of(like, "seed") == "77"
    assert re.search(r'name="prompt"[^>]*>\na lighthouse</textarea>', like.text)


def test_another_like_it_has_every_digit_of_every_setting(browser):
    numbers = {"cfg": "7.1234567", "denoise": "0.6", "lora_strength_model": ["0.1234567", "1"]}
    ask(browser, seed="77", **numbers)
    (job,) = jobs_of(browser)
    like = browser.get("/", params={"like": job["id"]})
    assert (value_of(like, "cfg"), value_of(like, "denoise")) == ("7.1234567", "0.6")
    assert value_of(like, "lora_strength_model") == "0.1234567"
    assert value_of(like, "lora_strength_clip") == "0.75"


def test_another_like_it_has_texts_that_end_as_numbers_do(browser):
    ask(browser, prompt="a poster that says v2.0", checkpoint_model="v2.0", lora_name=["ink.0", ""])
    (job,) = jobs_of(browser)
    like = browser.get("/", params={"like": job["id"]})
    assert re.search(r'name="prompt"[^>]*>\na poster that says v2.0</textarea>', like.text)
    assert value_of(like, "checkpoint_model") == "v2.0"
    assert value_of(like, "lora_name") == "ink.0"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", " "),
        ("batch_size", "9"),
        ("batch_size", "two"),
        ("steps", "1e3"),
        ("cfg", "nan"),
        ("denoise", "2"),
        ("seed", "-1"),
        ("checkpoint_model", "../x"),
        ("sampler_name", "<b>"),
    ],
)
def test_what_does_not_fit_is_told_at_its_field_and_nothing_is_lost(browser, name, value):
    refused = ask(browser, **{"negative_prompt": "blurry", name: value})
    assert refused.status_code == 422
    assert f'id="{name}-error"' in refused.text
    assert re.search(rf'name="{name}"[^>]*aria-invalid="true"', refused.text)
    assert "\nblurry</textarea>" in refused.text
    assert refused.headers["hx-retarget"] == "#make-form"
    assert not INLINE.search(refused.text)
    assert jobs_of(browser) == []


def test_a_wrong_own_size_or_lora_is_told(browser):
    wide = ask(browser, size="own", width="65", height="512")
    assert (wide.status_code, 'id="width-error"' in wide.text) == (422, True)
    lora = ask(browser, lora_strength_clip=["99", "1"])
    assert (lora.status_code, 'id="lora_models-error"' in lora.text) == (422, True)
    assert 'value="99"' in lora.text


def test_a_job_is_cancelled_retried_and_told_of(browser):
    ask(browser)
    (job,) = jobs_of(browser)
    path, token = f"/jobs/{job['id']}", csrf_of(browser.get("/"))
    assert browser.post(f"{path}/cancel").status_code == 403
    cancelled = browser.post(f"{path}/cancel", data={"csrf": token})
    assert (cancelled.status_code, cancelled.headers["location"]) == (303, path)
    page = browser.get(path)
    assert "Cancelled." in page.text
    # A card of a list stays one: its Retry goes on with the list, and not with another page.
    assert 'hx-target="#works"' not in page.text
    assert 'hx-target="#works"' in browser.get(f"{path}?listed=1").text
    listed = browser.post(f"{path}/cancel", data={"csrf": token, "listed": "1"})
    assert listed.headers["location"] == f"{path}?listed=1"
    assert "The job was created." in page.text
    assert "The job was cancelled." in page.text
    # The card on both pages is the same element, so that htmx can take it from either.
    assert f'id="job-{job["id"]}"' in page.text
    assert f'id="job-{job["id"]}"' in browser.get("/").text
    again = browser.post(f"{path}/retry", data={"csrf": token})
    assert (again.status_code, again.headers["location"]) == (303, "/")
    assert [one["retry_of"] for one in jobs_of(browser)] == [job["id"], None]


def test_another_users_job_is_nobodys(browser, visit):
    ask(browser)
    (job,) = jobs_of(browser)
    bob = visit("bob")
    token = csrf_of(bob.get("/"))
    assert bob.get(f"/jobs/{job['id']}").status_code == 404
    assert bob.get("/", params={"like": job["id"]}).status_code == 404
    for act in ("cancel", "retry"):
        answer = bob.post(f"/jobs/{job['id']}/{act}", data={"csrf": token})
        assert answer.status_code == 404
    assert "a lighthouse" not in bob.get("/").text


def test_why_a_job_failed_is_told_in_words(browser, database, make_claim):
    ask(browser)
    (job,) = jobs_of(browser)
    with database.transaction() as session:
        row = session.get_one(GenerationJob, job["id"])
    held = make_claim(row)
    with database.transaction() as session:
        attempts.fail(session, held, code="backend_error", message="the model <x> is broken")
    page = browser.get("/")
    assert "the model &lt;x&gt; is broken" in page.text
    assert f"/jobs/{job['id']}/retry" in page.text


def test_pictures_are_on_the_card_and_more_jobs_take_no_more_queries(
    browser, database, make_claim, queries
):
    def make_one() -> int:
        ask(browser)
        job_id = jobs_of(browser)[0]["id"]
        with database.transaction() as session:
            row = session.get_one(GenerationJob, job_id)
        held = make_claim(row)
        image = StoredImage("image/none.png", "0" * 64, "image/png", 8, 8, 9, thumbnails={})
        with database.transaction() as session:
            attempts.complete(session, held, [image], details={})
        return browser.get(f"/api/v1/generation-jobs/{job_id}").json()["content_id"]

    first = make_one()
    ask(browser)
    with queries() as few:
        page = browser.get("/")
    assert f'href="/pictures/{first}"' in page.text
    for _ in range(3):
        made = make_one()
        ask(browser)
    with queries() as many:
        page = browser.get("/")
    assert f'href="/pictures/{made}"' in page.text
    assert len(many) == len(few) <= 12


def test_there_is_room_for_another_lora_and_nothing_typed_is_lost(browser):
    page = ask(browser, another_lora="1")
    for rows in (3, *range(4, 11)):
        assert page.status_code == 200
        names = re.findall(r'name="lora_name" value="([^"]*)"', page.text)
        assert names == ["ink"] + [""] * (rows - 1)
        assert page.text.count("autofocus") == 1
        assert ('name="another_lora"' in page.text) is (rows < 10)
        blanks = [""] * (rows - 1)
        rows_sent = {name: [FORM[name][0], *blanks] for name in FORM if name.startswith("lora_")}
        page = ask(browser, another_lora="1", **rows_sent)
    assert value_of(page, "lora_strength_model") == "0.5"
    assert "a lighthouse" in page.text
    assert jobs_of(browser) == []
    assert browser.get("/make").headers["location"] == "/"
