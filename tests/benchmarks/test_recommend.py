"""The benchmark of recommendations takes ratings of others, and says which line is none."""

import json
import subprocess
import sys

import pytest

from genonaut.api.config import ROOT
from genonaut.core.planted import plant

recommend = pytest.importorskip("benchmarks.recommend")

LINE = {
    "tabs": "{}\t{}\t{}\t{}\n",
    "spaces": "{} {}  {} {}\n",
    "colons": "{}::{}::{}::{}\n",
    "commas": "{},{},{},{}\n",
}
HEADING = "userId,movieId,rating,timestamp\n"


@pytest.fixture
def write(tmp_path):
    def make(text, name="ratings"):
        path = tmp_path / name
        path.write_bytes(text.encode())
        return path

    return make


def ratings(form, users=40, items=60, count=900):
    data = plant(users, items, count, seed=5)
    whole = zip(data.user, data.item, data.rating, data.at, strict=True)
    return "".join(
        form.format(int(u) + 1, int(i) + 1, f"{r:.1f}", 881250949 + int(at))
        for u, i, r, at in whole
    )


def run(path):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.recommend", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_file_is_measured_from_end_to_end(write):
    done = run(write(HEADING + ratings(LINE["commas"]), "ratings.csv"))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["bench"], result["unit"]) == ("recommend", "recall@20")
    assert 0 < result["ours"] <= 1
    for name in ("ours", "als", "bm25", "popular"):
        assert f"\n{name} (" in done.stderr


def test_every_form_is_read_the_same(write):
    found = [
        recommend.read(write(heading + ratings(form), f"{name}.{bool(heading)}"))
        for name, form in LINE.items()
        for heading in ("", HEADING)
    ]
    assert len(found[0][0]) > 400
    for user, item in found[1:]:
        assert user.tolist() == found[0][0].tolist()
        assert item.tolist() == found[0][1].tolist()


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\n\n", " \n"])
def test_ends_of_lines_empty_lines_and_a_mark_of_order_are_no_words(write, ends):
    lines = ["a x 5 1", "a y 5 2", "a z 5 3", "a x 1 9"]
    user, item = recommend.read(write("\ufeff" + ends.join(lines)))
    assert (user.tolist(), item.tolist()) == ([0, 0, 0], [0, 1, 2])


@pytest.mark.parametrize(
    "line",
    [
        "1 2 3",
        "1 2 3 4 5",
        "1,2,3",
        "1::2::3",
        "1 2 3 yesterday",
        "1 2 good 4",
        "1 2 nan 4",
        "1 2 3 inf",
        ",2,3,4",
        "1,,3,4",
        "1 2 3 4e999",
        "userId,movieId,rating,timestamp",
    ],
)
def test_a_line_that_is_none_is_named(write, line):
    path = write("1 1 5 10\n1 2 5 11\n1 3 5 12\n" + line + "\n")
    with pytest.raises(ValueError, match="line 4 is not 'user item rating timestamp'") as refused:
        recommend.read(path)
    assert line in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no user has 3 items"),
        (HEADING, "no user has 3 items"),
        ("1 2 3 4\n1 5 3 4\n", "no user has 3 items"),
    ],
)
def test_a_file_with_too_little_in_it_is_refused(write, text, words):
    with pytest.raises(ValueError, match=words):
        recommend.read(write(text))


def test_the_script_says_in_one_line_what_is_wrong(write, tmp_path):
    for path, words in ((write("1 2\n"), "line 1 is not"), (tmp_path / "none", "No such file")):
        done = run(path)
        assert done.returncode == 1
        assert words in done.stderr
        assert done.stderr.startswith("recommend: ")
        assert "Traceback" not in done.stderr
