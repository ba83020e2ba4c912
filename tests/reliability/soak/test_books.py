"""What a file in storage was made of is found out from what ComfyUI drew."""

import io
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from genonaut.clients.storage import LocalStorage
from genonaut.core import imaging
from genonaut.core.thumbnails import ThumbSpec, thumbnails
from tests.reliability.program import until
from tests.reliability.rig import Rig
from tests.reliability.soak.audit import (
    files_are_whole,
    keys_are_ours,
    strays_are_explained,
)
from tests.reliability.soak.books import Drawn, files, gather, origins
from tests.reliability.soak.desk import Asked

SPEC = ThumbSpec()
PROMPT = "0b0e3c52-6a4e-4f0b-9a53-1c8f0f5f7a11"


@pytest.fixture
def drawn() -> bytes:
    """A picture as ComfyUI saves it, with the graph in it."""
    graph = PngInfo()
    graph.add_text("prompt", '{"1": {}}')
    into = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(into, "PNG", pnginfo=graph)
    return into.getvalue()


def test_every_file_of_a_picture_leads_back_to_its_prompt(tmp_path: Path, drawn: bytes):
    output = tmp_path / f"12-{PROMPT}_00001_.png"
    output.write_bytes(drawn)
    storage = LocalStorage(tmp_path / "storage", min_free_bytes=0)
    clean = imaging.strip_metadata(drawn, imaging.inspect(drawn))
    storage.put(clean, mime="image/png")
    for each in thumbnails(clean, SPEC).values():
        storage.put(each.data, mime=each.mime)
    found = origins([output], SPEC)
    stored = list(files(tmp_path / "storage"))
    assert len(stored) >= 2
    assert [found[file.sha256] for file in stored] == [{Drawn(12, PROMPT)}] * len(stored)
    assert all(file.path.rpartition("/")[2].startswith(file.sha256) for file in stored)


def test_what_comfyui_had_not_finished_is_nobodys(tmp_path: Path, drawn: bytes):
    output = tmp_path / f"12-{PROMPT}_00001_.png"
    output.write_bytes(drawn[:60])
    assert origins([output], SPEC) == {}


@pytest.mark.slow
def test_the_file_of_a_worker_killed_before_its_commit_is_explained(rig: Rig):
    late = rig.worker("late", hook="freeze_before_commit")
    job_id = rig.submit()
    until(late.is_frozen, "the worker stands still with its pictures")
    rig.cancel(job_id)
    late.kill9()
    rig.worker("second")
    rig.wait_for(job_id, "cancelled")
    books = gather(rig, Asked())
    assert len(books.stray_files()) >= 2
    for check in (strays_are_explained, files_are_whole, keys_are_ours):
        assert list(check(books)) == []
    books.attempts[0].outcome = "completed"
    assert len(list(strays_are_explained(books))) == len(books.stray_files())
