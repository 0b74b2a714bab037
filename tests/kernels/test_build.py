"""Kernels are compiled whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from moreie.kernels import build, library


def test_without_a_compiler_there_are_no_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")
    assert build.build(tmp_path) == []
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert build.build(tmp_path) == []
    assert not list(tmp_path.iterdir())
    assert library.load(tmp_path) is None


def test_what_is_compiled_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if build.compiler() is None:
        pytest.skip("no C++ compiler on this machine, so there are no kernels")
    monkeypatch.setattr(build, "VARIANTS", {"": ()})
    monkeypatch.setattr(library, "library_names", build.library_names)
    assert [path.name for path in build.build(tmp_path)] == list(build.library_names().values())
    assert library.load(tmp_path) is not None


def test_every_source_counts_in_the_name() -> None:
    folder = Path(build.FOLDER)
    assert {*folder.glob("*.cpp"), *folder.glob("*.h")} == {*build.SOURCES, *build.HEADERS}
