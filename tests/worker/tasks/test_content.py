"""The collection is counted and added to; the tests of ``domain`` have the rules."""

import os
from pathlib import Path

import pytest
from sqlalchemy import select

from genonaut.db.models import ContentImage
from genonaut.domain import run_history, runs
from genonaut.worker import drain, run
from genonaut.worker.tasks import content as module
from genonaut.worker.tasks.content import ImportResult, Result, import_folder, refresh_stats
from genonaut.worker.tasks.thumbnails import backfill
from tests.core.pictures import encode, picture
from tests.support.racing import Racing
from tests.support.simulator import wait_until
from tests.worker.conftest import work_on


def test_it_counts_and_counts_again(run_task, database, make_user):
    from genonaut.db.models import ContentItem

    ada = make_user()
    with database.transaction() as session:
        session.add(ContentItem(title="x", prompt="x", creator_id=ada.id))
    for days in (None, 7):
        result, _ = run_task(refresh_stats, days=days)
        assert result == Result(rows=1)


@pytest.fixture
def root(tmp_path, task_services, make_settings):
    """A folder that may be imported."""
    root = tmp_path / "pictures"
    root.mkdir()
    settings = make_settings(import_root=root, storage_min_free_mb=0)
    object.__setattr__(task_services, "settings", settings)
    return root


def fill(root, count):
    for n in range(count):
        path = root / f"{n % 3}" / f"{n:03}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(picture(size=(20 + n, 20)), "PNG"))


def test_a_folder_is_taken_in_once_and_gets_thumbnails(run_task, root, make_user):
    make_user("ada")
    fill(root, 5)
    (root / "copy.png").write_bytes((root / "0" / "000.png").read_bytes())
    asked = {"folder": ".", "creator": "ada"}
    dry, _ = run_task(import_folder, dry_run=True, **asked)
    assert dry == ImportResult(files=6)
    first, progress = run_task(import_folder, **asked)
    assert first == ImportResult(files=6, imported=5, known=1)
    assert progress[-1] == (6, 6)
    again, _ = run_task(import_folder, **asked)
    assert again == ImportResult(files=6, known=6)
    made, _ = run_task(backfill)
    assert made.made == 5


def test_a_file_that_another_deletes_meanwhile_is_taken_in_again(
    committed_database, start_run, root, make_user, task_services
):
    make_user("ada")
    fill(root, 3)
    store = Racing(task_services.storage, committed_database)
    object.__setattr__(task_services, "storage", store)
    row = start_run(import_folder, folder=".", creator="ada")
    assert (row.status, row.progress["phase"]) == ("pending", "waiting_to_retry")
    wait_until(lambda: run.run(task_services, import_folder, row.id, worker="worker-1"))
    with committed_database.transaction() as session:
        assert runs.one(session, row.id).result["imported"] == 3
        named = session.scalars(select(ContentImage.storage_key)).all()
    assert set(store.removed) < set(named)
    assert all(map(store.exists, named))


def test_what_is_no_picture_is_listed(start_run, root, make_user, database):
    make_user("ada")
    (root / "bad.png").write_text("?")
    row = start_run(import_folder, folder=".", creator="ada")
    assert (row.result["failed"], row.failed_items) == (1, 1)
    with database.transaction() as session:
        [failure] = run_history.failures(session, row.id)
    assert failure.ref == "bad.png"


def test_names_of_any_bytes_are_remembered_and_listed(start_run, root, make_user, database):
    make_user("ada")
    for name in (b"\xff.png", b"a\nb.png", b"d" * 200 + b"/" + b"e" * 200 + b"/\xfe.png"):
        path = Path(os.fsdecode(os.fsencode(root) + b"/" + name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("?")
    row = start_run(import_folder, folder=".", creator="ada")
    assert (row.status, row.result["failed"]) == ("completed", 3)
    with database.transaction() as session:
        refs = {failure.ref for failure in run_history.failures(session, row.id)}
    assert refs == {"\\xff.png", "a\\nb.png", "d" * 45 + "/" + "e" * 200 + "/\\xfe.png"}


def test_only_below_the_root_and_for_a_known_user(start_run, root, make_user, tmp_path):
    make_user("ada")
    for folder in ("..", str(tmp_path), "nowhere"):
        row = start_run(import_folder, folder=folder, creator="ada")
        assert (row.status, row.error_code) == ("failed", "invalid_input")
    row = start_run(import_folder, folder=".", creator="nobody")
    assert (row.status, row.error_code) == ("failed", "not_found")


def test_without_a_root_nothing_is_imported(start_run, make_user):
    row = start_run(import_folder, folder=".", creator="ada")
    assert (row.status, row.error_code) == ("failed", "invalid_input")


def test_a_killed_import_goes_on_where_it_stopped(
    start_run, root, make_user, task_services, monkeypatch
):
    make_user("ada")
    fill(root, 7)
    monkeypatch.setattr(module, "_BATCH", 2)
    take, seen = module.folders.take, []

    def note(folder, found, *rest):
        if len(seen) == 4:
            monkeypatch.setattr(drain, "is_over", lambda: True)
        seen.append(found.path)
        return take(folder, found, *rest)

    monkeypatch.setattr(module.folders, "take", note)
    row = start_run(import_folder, folder=".", creator="ada")
    assert (row.status, row.checkpoint["counts"]["imported"]) == ("pending", 4)
    monkeypatch.setattr(drain, "is_over", lambda: False)
    row = work_on(task_services, import_folder, row.id)
    assert row.result == {"files": 7, "imported": 7, "known": 0, "failed": 0}
    assert len(set(seen)) == 7
    assert len(seen) <= 9
