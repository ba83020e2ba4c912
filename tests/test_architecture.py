"""Rules that no linter has."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from dotenv import dotenv_values

from genonaut.api.config import ROOT, Settings

PACKAGE = ROOT / "genonaut"
MODULES = sorted(PACKAGE.rglob("*.py"))
LINES_MAX = 450


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# As they stand: to be split by whoever next adds to them, never to grow in number.
LONG = {"genonaut/api/config.py", "genonaut/worker/generation.py"}


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def offenders(paths, is_wrong) -> list[str]:
    return [
        f"{name(path)}:{node.lineno}" for path in paths for node in nodes(path) if is_wrong(node)
    ]


def ends_a_transaction(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"commit", "rollback"}
        and not (isinstance(node.func.value, ast.Name) and node.func.value.id == "connection")
    )


def changes_status(node: ast.AST) -> bool:
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return any(
            isinstance(target, ast.Attribute)
            and target.attr == "status"
            and not (isinstance(target.value, ast.Name) and target.value.id == "self")
            for target in targets
        )
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "values"
        and any(keyword.arg == "status" for keyword in node.keywords)
    )


def test_only_the_session_module_commits_or_rolls_back():
    others = [path for path in MODULES if name(path) != "genonaut/db/session.py"]
    assert offenders(others, ends_a_transaction) == []


def test_only_lifecycle_changes_a_status():
    # The simulator is another program, with a state machine of its own.
    ours = [path for path in MODULES if "local" not in path.relative_to(PACKAGE).parts]
    others = [path for path in ours if name(path) != "genonaut/domain/lifecycle.py"]
    assert offenders(others, changes_status) == []


@pytest.mark.parametrize(
    ("is_wrong", "code"),
    [
        (ends_a_transaction, "session.commit()"),
        (ends_a_transaction, "self.session.rollback()"),
        (changes_status, "job.status = 'failed'"),
        (changes_status, "update(Job).where(x).values(status='failed')"),
    ],
)
def test_the_rules_see_what_they_forbid(is_wrong, code):
    assert any(is_wrong(node) for node in ast.walk(ast.parse(code)))


def test_every_public_domain_function_has_a_docstring():
    def lacks_docstring(node: ast.AST) -> bool:
        return (
            isinstance(node, ast.FunctionDef | ast.ClassDef)
            and not node.name.startswith("_")
            and ast.get_docstring(node) is None
        )

    assert offenders(sorted((PACKAGE / "domain").rglob("*.py")), lacks_docstring) == []


def test_task_modules_do_not_import_each_other():
    tasks = [p for p in (PACKAGE / "worker" / "tasks").glob("*.py") if p.name != "__init__.py"]

    def imports_a_task(node: ast.AST) -> bool:
        names = []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{a.name}" for a in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        return any(one.startswith("genonaut.worker.tasks") for one in names)

    assert tasks
    assert offenders(tasks, imports_a_task) == []


def test_nothing_can_flush_every_database_of_a_redis():
    forbidden = "FLUSH" + "ALL"
    folders = [PACKAGE, ROOT / "migrations", ROOT / "tests", ROOT / "benchmarks"]
    files = [p for folder in folders for p in folder.rglob("*.py")]
    files += [p for p in (ROOT / "Makefile",) if p.exists()]
    called = re.compile(rf"\b{forbidden}\b(?!.*never)", re.IGNORECASE)
    found = [name(p) for p in files if called.search(p.read_text(encoding="utf-8"))]
    assert found == ["tests/test_makefile.py"]  # which looks for it too


def test_no_module_is_too_long():
    long = {name(p) for p in MODULES if len(p.read_text().splitlines()) > LINES_MAX}
    assert long - LONG == set()


ELSEWHERE = {
    "genonaut/core/clock.py": "one line",
    "genonaut/core/image_colour.py": "core/test_imaging",
    "genonaut/core/image_containers.py": "core/test_imaging",
    "genonaut/core/image_opening.py": "core/test_imaging_hostile",
    "genonaut/domain/kinds.py": "names",
}


@pytest.mark.parametrize("area", ["core", "domain", "db"])
def test_every_module_of_the_rules_has_its_tests(area):
    modules = [p for p in (PACKAGE / area).glob("*.py") if p.name != "__init__.py"]
    lacking = [
        name(path)
        for path in modules
        if not (ROOT / "tests" / area / f"test_{path.name}").exists()
        and name(path) not in ELSEWHERE
    ]
    assert lacking == []


EXAMPLE = ROOT / "env" / "env.example"


def test_the_example_lists_every_setting_with_its_default():
    listed = dotenv_values(EXAMPLE, interpolate=False)
    assert listed.keys() == {field.upper() for field in Settings.model_fields}
    for field, info in Settings.model_fields.items():
        given = listed[field.upper()] or None
        if field.startswith(("celery_broker_url_", "celery_result_backend_")):
            assert given == f"${{REDIS_URL_{field.rpartition('_')[2].upper()}}}"
            continue
        default = info.default
        expected = str(default).lower() if isinstance(default, bool) else default
        assert given == (None if expected is None else str(expected)), field


def test_the_example_says_of_each_setting_what_it_is():
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    described = {
        below.partition("=")[0]: above
        for above, below in pairwise(lines)
        if re.match(r"[A-Z_]+=", below)
    }
    assert len(described) == len(Settings.model_fields)
    for field, info in Settings.model_fields.items():
        assert described[field.upper()] == f"# {info.description}", field


def test_the_example_is_itself_a_configuration(tmp_path, monkeypatch):
    from genonaut.api.config import load_settings

    (tmp_path / "env").mkdir()
    (tmp_path / "env" / ".env").write_text(EXAMPLE.read_text(encoding="utf-8"))
    without = load_settings()
    monkeypatch.chdir(tmp_path)
    with_file = load_settings()
    different = {
        field
        for field in Settings.model_fields
        if getattr(with_file, field) != getattr(without, field)
        and not field.startswith(("celery_broker_url_", "celery_result_backend_"))
    }
    assert different == set()
    assert with_file.celery_broker_url == with_file.redis_url
