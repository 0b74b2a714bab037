"""Modules that are executed when they are first used, or are not there, and garbage that nobody looks for."""

from __future__ import annotations

import gc
import importlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from moreie.starting import collecting_later, deferring, execute, uncollected, without


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of modules of which each notes in `starting_told` that it has been executed."""
    (tmp_path / "starting_told.py").write_text("executed = []\n")
    note = "import starting_told\nstarting_told.executed.append(__name__)\n"
    (tmp_path / "starting_one.py").write_text(f"{note}value = 1\n")
    (tmp_path / "starting_two.py").write_text(f"{note}import starting_one\nvalue = starting_one.value + 1\n")
    (tmp_path / "starting_needs.py").write_text(note)
    (tmp_path / "starting_broken.py").write_text(f"{note}raise OSError('not today')\n")
    (tmp_path / "starting_slow.py").write_text(f"{note}import time\ntime.sleep(0.3)\nvalue = 3\n")
    package = tmp_path / "starting_package"
    package.mkdir()
    (package / "__init__.py").write_text(f"{note}from starting_package import part\nvalue = part.value\n")
    (package / "part.py").write_text(f"{note}from starting_package import __name__ as whole\nvalue = 4\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    finders = list(sys.meta_path)
    yield tmp_path
    sys.meta_path[:] = finders
    for name in [name for name in sys.modules if name.startswith("starting_")]:
        del sys.modules[name]


def executed() -> list[str]:
    found: list[str] = importlib.import_module("starting_told").executed
    return found


@pytest.mark.usefixtures("modules")
def test_a_module_is_executed_when_something_of_it_is_used() -> None:
    with deferring(("starting_one", "starting_two", "starting_absent")):
        one, two = importlib.import_module("starting_one"), importlib.import_module("starting_two")
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("starting_absent")
    assert sys.modules["starting_one"] is one
    assert one.__name__ == "starting_one"
    assert one.__file__
    assert one.__spec__
    assert executed() == []
    assert two.value == 2
    assert executed() == ["starting_two", "starting_one"]
    assert one.value == two.value - 1
    assert type(one) is ModuleType
    assert importlib.reload(one).value == 1
    with pytest.raises(AttributeError, match="starting_one"):
        _ = one.nothing
    assert executed() == ["starting_two", "starting_one", "starting_one"]


@pytest.mark.usefixtures("modules")
def test_what_stands_for_an_attribute_is_there_until_then() -> None:
    with deferring((), given={"starting_one": {"value": "stand-in", "other": 1}}):
        one = importlib.import_module("starting_one")
        assert one.value == "stand-in"
        assert executed() == []
    with pytest.raises(AttributeError):
        _ = one.nothing
    assert executed() == ["starting_one"]
    assert one.value == 1
    assert not hasattr(one, "other"), "what it has not is not there"


@pytest.mark.usefixtures("modules")
def test_all_are_executed_before_a_module_that_needs_them() -> None:
    with deferring(("starting_one", "starting_two"), until=("starting_needs",)):
        for name in ("starting_one", "starting_two"):
            importlib.import_module(name)
    assert executed() == []
    importlib.import_module("starting_needs")
    assert executed() == ["starting_one", "starting_two", "starting_needs"]


@pytest.mark.usefixtures("modules")
def test_a_module_imported_behind_the_block_is_executed_at_once() -> None:
    before = list(sys.meta_path)
    with deferring(("starting_one",)):
        pass
    assert sys.meta_path == before
    importlib.import_module("starting_one")
    assert executed() == ["starting_one"]
    with deferring(("starting_one",)):
        importlib.import_module("starting_one")
    assert executed() == ["starting_one"]


@pytest.mark.usefixtures("modules")
def test_a_part_of_a_package_that_waits_is_found_and_may_use_it() -> None:
    with deferring(("starting_package",)):
        part = importlib.import_module("starting_package.part")
    package = sys.modules["starting_package"]
    assert package.value == part.value == 4
    assert sorted(executed()) == ["starting_package", "starting_package.part"]
    with deferring(("starting_two",)):
        importlib.import_module("starting_two")
    with pytest.raises(ModuleNotFoundError, match="not a package"):
        importlib.import_module("starting_two.part")


@pytest.mark.usefixtures("modules")
def test_what_a_module_raises_is_raised_where_it_is_used() -> None:
    with deferring(("starting_broken",)):
        broken = importlib.import_module("starting_broken")
    for _ in range(2):
        with pytest.raises(OSError, match="not today"):
            _ = broken.value
    execute(sys)  # nothing


@pytest.mark.usefixtures("modules")
def test_other_threads_wait_until_it_is_executed() -> None:
    with deferring(("starting_slow",)):
        slow = importlib.import_module("starting_slow")
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(slow.value)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [3] * 4
    assert executed() == ["starting_slow"]


@pytest.mark.usefixtures("modules")
def test_modules_that_are_as_if_they_were_not_installed() -> None:
    with without(("starting_one",)):
        with pytest.raises(ModuleNotFoundError, match="starting_one"):
            importlib.import_module("starting_one")
        with pytest.raises(ModuleNotFoundError, match="starting_one"):
            importlib.import_module("starting_two")
    assert importlib.import_module("starting_two").value == 2


def fails_to_load() -> None:
    with uncollected():
        assert not gc.isenabled()
        raise KeyError


def test_what_is_imported_is_looked_through_behind_the_block() -> None:
    before = gc.get_freeze_count()
    with collecting_later():
        assert not gc.isenabled()
        with collecting_later():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == before


def test_nothing_is_collected_while_a_model_is_loaded() -> None:
    assert gc.isenabled()
    before = gc.get_freeze_count()
    with pytest.raises(KeyError):
        fails_to_load()
    assert gc.isenabled()
    assert gc.get_freeze_count() > before
    gc.unfreeze()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled(), "as it was"
    finally:
        gc.unfreeze()
        gc.enable()
