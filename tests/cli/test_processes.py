"""What ``genonaut up`` starts is of the environment it was asked for, wherever that was."""

from genonaut.api.config import ENV_FILE
from genonaut.cli.processes import Part, compose


def test_processes_read_the_file_that_the_command_read(database, settings, tmp_path, monkeypatch):
    file = tmp_path / "env" / ".env"
    file.parent.mkdir()
    file.write_text("")
    monkeypatch.chdir(tmp_path)
    started = [p for stage in compose(settings, database, set(Part)) for p in stage]
    assert len(started) > len(Part)
    for process in started:
        assert process.env[ENV_FILE] == str(file)
        assert process.env["APP_ENV"] == "test"
