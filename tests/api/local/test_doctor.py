"""What `isoflop doctor` says of a machine, each look by itself."""

import fcntl
import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.cli import app
from api.local import doctor


def test_check_import_of_what_is_there_and_what_is_not() -> None:
    assert doctor.check_import("json").state == "ok"
    missing = doctor.check_import("no_such_module")
    assert missing.state == "failed"
    assert "No module named" in missing.sentence


def test_check_import_that_ends_its_process_is_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "crashing.py").write_text("import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    assert doctor.check_import("crashing").state == "failed"


def test_check_import_that_hangs_is_failed_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hanging.py").write_text("import signal; signal.pause()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "IMPORT_TIMEOUT_S", 0.5)

    assert "did not end" in doctor.check_import("hanging").sentence


def test_check_port_taken_is_a_warning() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert doctor.check_port("127.0.0.1", port).state == "warning"
    assert doctor.check_port("127.0.0.1", port).state == "ok"


def test_check_lock_held_names_the_holder_and_looking_takes_nothing(tmp_path: Path) -> None:
    assert doctor.check_lock(tmp_path / "absent").state == "ok"
    assert not (tmp_path / "absent").exists()
    path = tmp_path / "controller.lock"
    path.write_text("4711")
    assert doctor.check_lock(tmp_path).state == "ok"
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "4711" in doctor.check_lock(tmp_path).sentence


def test_check_disk_looks_at_the_nearest_directory_that_exists(tmp_path: Path) -> None:
    assert str(tmp_path) in doctor.check_disk(tmp_path / "a" / "b").sentence


def test_doctor_exit_code_is_1_when_something_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "_PACKAGES", ("no-such-package",))
    monkeypatch.setattr(doctor, "check_import", lambda name: doctor.Check(name=name, state="ok", sentence="skipped"))

    result = CliRunner().invoke(app, ["--data-dir", str(tmp_path), "doctor", "--json"])

    checks = {check["name"]: check for check in json.loads(result.stdout)}
    assert result.exit_code == 1
    assert checks["packages"]["state"] == "failed"
    assert "no-such-package" in checks["packages"]["sentence"]
    assert {"python", "gpu", "memory", "disk", "data directory", "port", "browser"} <= set(checks)
