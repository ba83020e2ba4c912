import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from genonaut.core import imaging, thumbnails
from genonaut.core.errors import (
    DecoderCrashError,
    ImageTimeoutError,
    ImageTooLargeError,
    RetryableError,
    UnreadableImageError,
    UnsupportedImageError,
)
from genonaut.core.thumbnails import ThumbSpec
from genonaut.worker.rendering import Limits, Renderer
from tests.core.pictures import SECRET, decode, encode, exif, picture
from tests.support.limits import few_descriptors

PICTURE = encode(picture(size=(300, 200)), "PNG")
SPEC = ThumbSpec(sizes=(64, 32), formats=("webp", "jpeg"), fit="cover")

PARENT = """
import sys, threading
from pathlib import Path
from genonaut.core.thumbnails import ThumbSpec
from genonaut.worker.rendering import Renderer
renderer = Renderer()
SLOW = ThumbSpec(sizes=(4096,), formats=("avif", "webp"), method=6, quality=100)
small, large = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]).read_bytes()
renderer.render(small, ThumbSpec())
threading.Thread(target=renderer.render, args=(large, SLOW)).start()
print(renderer._idle[0]._process.pid if renderer._idle else "busy", flush=True)
threading.Event().wait()
"""


@pytest.fixture
def renderer():
    with Renderer() as made:
        yield made


@pytest.fixture(scope="module")
def slow():
    """Take seconds of a processor, whole and within every limit of its own."""
    noise = Image.effect_noise((1024, 1024), 90).convert("RGB")
    return encode(noise.resize((4096, 4096)), "PNG", compress_level=1)


SLOW = ThumbSpec(sizes=(4096,), formats=("avif", "webp"), method=6, quality=100)
"""How to make something of it that takes seconds."""


@pytest.fixture(autouse=True)
def others(monkeypatch):
    """The children that were there before: another test's business."""
    monkeypatch.setitem(OTHERS, "pids", frozenset())
    monkeypatch.setitem(OTHERS, "pids", frozenset(children()))


OTHERS = {"pids": frozenset()}


def children():
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            rest = stat.read_text().rpartition(")")[2]
            if int(rest.split()[1]) == os.getpid() and rest.split()[0] != "Z":
                line = (stat.parent / "cmdline").read_bytes()
                if b"rendering_child" in line:
                    found.append(int(stat.parent.name))
    return [pid for pid in found if pid not in OTHERS["pids"]]


def cpu_s(pid):
    """Give the processor time used; it takes a fraction of a second to start."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until(condition, seconds=10):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_thumbnails_are_those_of_core(renderer):
    assert renderer.render(PICTURE, SPEC) == thumbnails.thumbnails(PICTURE, SPEC)
    assert list(renderer.render(PICTURE, SPEC)) == list(thumbnails.thumbnails(PICTURE, SPEC))


def test_a_picture_is_cleaned_as_core_does(renderer):
    data = encode(picture(), "JPEG", exif=exif(6))
    clean, info = renderer.clean(data)
    assert clean == imaging.strip_metadata(data, imaging.inspect(data))
    assert info == imaging.inspect(clean)
    assert SECRET not in clean


def test_errors_arrive_as_they_were_raised(renderer):
    for data, kind in (
        (b"<html>", UnsupportedImageError),
        (b"", UnreadableImageError),
        (PICTURE[:200], UnreadableImageError),
        (b"BM" + encode(Image.new("L", (1, 1)), "BMP")[2:18] + b"\xff\xff\0\0" * 9, None),
        (encode(Image.new("1", (9000, 9000)), "PNG"), ImageTooLargeError),
    ):
        with pytest.raises(UnreadableImageError) as caught:
            renderer.render(data, SPEC)
        if kind:
            assert type(caught.value) is kind
            with pytest.raises(kind) as direct:
                thumbnails.thumbnails(data, SPEC)
            assert str(direct.value) == str(caught.value)
    assert renderer.render(PICTURE, SPEC)


def test_one_child_serves_picture_after_picture(renderer):
    renderer.render(PICTURE, SPEC)
    first = children()
    for _ in range(5):
        renderer.render(PICTURE, SPEC)
    assert children() == first
    assert len(first) == 1


@pytest.mark.parametrize("room", range(5))
def test_where_no_child_can_be_started_the_picture_is_not_to_blame(room):
    with Renderer() as renderer:
        with few_descriptors(room), pytest.raises(RetryableError):
            renderer.clean(PICTURE)
        assert renderer.clean(PICTURE)[1].width == 300


def test_where_no_more_processes_are_allowed_the_picture_is_not_to_blame_either(renderer):
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        if os.geteuid() == 0:  # whom this does not bind
            os.setuid(65534)
        with contextlib.suppress(BaseException):
            try:
                renderer.render(PICTURE, SPEC)
            except RetryableError as error:
                os._exit(0 if isinstance(error.__cause__, BlockingIOError) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_many_threads_share_no_more_children_than_allowed(renderer):
    expected = thumbnails.thumbnails(PICTURE, SPEC)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: renderer.render(PICTURE, SPEC), range(60)))
    assert all(one == expected for one in made)
    assert 1 <= len(children()) <= 2


def test_a_decoder_that_takes_too_much_processor_is_ended(slow):
    with Renderer(Limits(cpu_s=1)) as renderer:
        renderer.render(PICTURE, SPEC)
        with pytest.raises(ImageTimeoutError, match="more than 1 s"):
            renderer.render(slow, SLOW)
        assert renderer.render(PICTURE, SPEC)
        assert len(children()) == 1


def test_a_decoder_that_stands_still_is_ended():
    with Renderer(Limits(stall_s=3)) as renderer:
        renderer.render(PICTURE, SPEC)
        [child] = children()
        os.kill(child, signal.SIGSTOP)
        with pytest.raises(ImageTimeoutError, match="stood still"):
            renderer.render(PICTURE, SPEC)
        assert children() == []


def test_a_decoder_that_takes_too_much_memory_gives_up(slow):
    with Renderer(Limits(memory_bytes=120 * 2**20)) as renderer:
        assert renderer.render(PICTURE, SPEC)
        with pytest.raises(ImageTooLargeError, match="memory"):
            renderer.render(encode(Image.new("RGB", (6000, 6000)), "PNG"), SPEC)
        with pytest.raises(UnreadableImageError):
            renderer.render(slow, SLOW)
        assert renderer.render(PICTURE, SPEC)


def test_large_pictures_wait_for_each_other_and_small_ones_do_not():
    large = encode(Image.new("L", (5000, 5000)), "PNG")
    with Renderer(processes=2) as renderer, ThreadPoolExecutor(2) as pool:
        with renderer._large:
            waiting = pool.submit(renderer.render, large, SPEC)
            wait_until(lambda: renderer._idle)
            assert renderer.render(PICTURE, SPEC)
            assert renderer.clean(PICTURE)
            assert not waiting.done()
        assert waiting.result()
        with pytest.raises(ImageTooLargeError, match="48,000,000"):
            renderer.render(encode(Image.new("1", (7000, 7000)), "PNG"), SPEC)


def test_what_a_large_picture_took_is_given_back(renderer):
    renderer.render(PICTURE, SPEC)
    renderer.render(encode(Image.new("RGB", (6900, 6900)), "PNG"), SPEC)
    [child] = children()
    statm = Path(f"/proc/{child}/statm")
    wait_until(lambda: int(statm.read_text().split()[1]) * 4096 < 120 * 2**20)


def test_a_child_killed_from_outside_costs_no_picture(renderer):
    expected = renderer.render(PICTURE, SPEC)
    [child] = children()
    os.kill(child, signal.SIGKILL)
    assert renderer.render(PICTURE, SPEC) == expected
    assert child not in children()


def test_a_child_killed_again_and_again_is_the_pictures_fault(renderer, slow):
    with ThreadPoolExecutor(1) as pool:
        failing = pool.submit(renderer.render, slow, SLOW)
        for _ in range(2):
            wait_until(lambda: [cpu_s(pid) for pid in children() if cpu_s(pid) > 1])
            [child] = children()
            os.kill(child, signal.SIGSEGV)
            wait_until(lambda gone=child: gone not in children())
        with pytest.raises(DecoderCrashError, match="SIGSEGV"):
            failing.result(10)
    assert renderer.render(PICTURE, SPEC)


def test_signals_meant_for_the_worker_do_not_end_its_child(renderer):
    renderer.render(PICTURE, SPEC)
    [child] = children()
    os.kill(child, signal.SIGTERM)
    os.kill(child, signal.SIGINT)
    renderer.render(PICTURE, SPEC)
    assert children() == [child]


def test_an_interrupted_picture_leaves_no_half_answer(renderer, slow):
    def interrupt(*_):
        raise KeyboardInterrupt

    renderer.render(PICTURE, SPEC)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            renderer.render(slow, SLOW)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert renderer.render(PICTURE, SPEC) == thumbnails.thumbnails(PICTURE, SPEC)


def test_closing_ends_the_children():
    renderer = Renderer()
    renderer.render(PICTURE, SPEC)
    assert children()
    renderer.close()
    assert children() == []
    assert renderer.render(PICTURE, SPEC)
    renderer.close()


def test_a_child_ends_with_its_parent_even_in_the_middle_of_a_picture(tmp_path, slow):
    (tmp_path / "small").write_bytes(PICTURE)
    (tmp_path / "large").write_bytes(slow)
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, tmp_path / "small", tmp_path / "large"],
        stdout=subprocess.PIPE,
    ) as parent:
        parent.stdout.readline()
        listed = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        wait_until(lambda: listed.read_text().split())
        mine = [int(pid) for pid in listed.read_text().split()]
        parent.kill()
    wait_until(lambda: not any(is_running(pid) for pid in mine), 1)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_forked_process_starts_children_of_its_own(renderer):
    renderer.render(PICTURE, SPEC)
    before = children()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            renderer.after_fork()
            os._exit(0 if renderer.render(PICTURE, SPEC) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert renderer.render(PICTURE, SPEC)
    assert children() == before


def test_what_c_libraries_say_of_broken_files_is_not_heard(renderer, capfd):
    data = bytearray(encode(picture("1", (70, 50)), "TIFF", compression="group4"))
    data[20:60] = b"\x5a" * 40
    with contextlib.suppress(UnreadableImageError):
        thumbnails.thumbnails(bytes(data), SPEC)
    assert "Fax4Decode" in capfd.readouterr().err
    with contextlib.suppress(UnreadableImageError):
        renderer.render(bytes(data), SPEC)
    assert capfd.readouterr().err == ""


def test_no_secret_is_handed_to_a_decoder(renderer):
    renderer.render(PICTURE, SPEC)
    [child] = children()
    environment = Path(f"/proc/{child}/environ").read_bytes()
    assert {line.partition(b"=")[0] for line in environment.split(b"\0") if line} <= {
        b"PYTHONPATH",
        b"LC_CTYPE",
    }


def test_alpha_and_size_survive_the_journey(renderer):
    data = encode(picture("RGBA", (100, 50)), "PNG")
    small = decode(renderer.render(data, ThumbSpec(sizes=(50,)))[50, "webp"].data)
    assert (small.mode, small.size) == ("RGBA", (50, 25))
