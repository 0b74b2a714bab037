"""The doctor tries the real parts of this machine, and says what is broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moreie import environment
from moreie.cli.app import app

runner = CliRunner()


def test_everything_that_is_needed_works_here(small_corpus: Path) -> None:
    done = runner.invoke(app, ["doctor", "--json", "--corpus", str(small_corpus)])
    assert done.exit_code == 0, done.output
    found = {part["name"]: part for part in json.loads(done.stdout)}
    assert {"Python", "torch", "GPU", "kernels", "pictures", "disk, here", "shipped model"} <= found.keys()
    assert "Angela Merkel PER" in found["shipped model"]["said"]
    assert "first" in found[f"corpus {small_corpus}"]["said"]
    assert {f"extra {name}" for name in environment.PURPOSES} <= found.keys()
    for part in found.values():
        assert part["state"] in ("well", "absent"), part
        if part["name"].startswith("extra") and part["state"] == "absent":
            assert part["remedy"].startswith("pip install 'moreie[")


def test_what_is_broken_is_said_and_ends_with_status_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The model is tried in the other test.
    monkeypatch.setattr(environment, "_model", lambda: iter(()))
    monkeypatch.setenv("COLUMNS", "500")  # a path in two lines is told by no test
    done = runner.invoke(app, ["doctor", "--corpus", str(tmp_path / "nowhere")])
    assert done.exit_code == 1, done.output
    assert "nowhere" in "".join(done.stdout.split())
    assert "✗" in done.stdout


def test_libraries_are_compared_with_what_is_asked_for() -> None:
    assert environment._unmet("numpy", ">=1.0") == ""
    assert "numpy" in environment._unmet("numpy", ">=999")
    assert environment._unmet("no-such-library", ">=1") == "no-such-library is not installed"
