"""Commands of a second start in less time: modules that are imported at once and executed when something of them is
first used (a library imports for all of its users what such a command does not use), and no garbage collected.

`importlib.util.LazyLoader` executes a module as soon as any attribute of it is asked for, also by the import system
itself, which is at once where a package names what it imports.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from threading import RLock
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a hundredth of a second, most of it for the module's other uses
    from importlib.abc import Loader

_HOW = "__deferred__"
"""Where a module that waits keeps its `_Later`."""


@contextmanager
def deferring(
    modules: Collection[str], until: Collection[str] = (), *, given: Mapping[str, Mapping[str, object]] | None = None
) -> Iterator[None]:
    """Of what is imported within the block, `modules` are executed when an attribute of them is first asked for that
    the import system has not set; all of them, also behind the block, before a module of `until` is imported. Those
    that have been imported already, or are not there, are not touched. `given` has by their names modules that wait
    likewise and what stands for some of their attributes until then."""
    stand_ins = given or {}
    finder = _Finder(frozenset((*modules, *stand_ins)), frozenset(until), stand_ins)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        finder.modules = frozenset()
        if not finder.waiting:
            sys.meta_path.remove(finder)


@contextmanager
def without(modules: Collection[str]) -> Iterator[None]:
    """Within the block these modules are as if they were not installed, unless they have been imported before."""
    finder = _Absent(frozenset(modules))
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


@contextmanager
def collecting_later() -> Iterator[None]:
    """Within the block Python collects no garbage: imports and loading make a million objects that stay, and looking
    through them again and again takes up to a quarter of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def uncollected() -> Iterator[None]:
    """As `collecting_later`, and none that has been made until the end of the block is ever collected: for processes
    of the project's own."""
    with collecting_later():
        try:
            yield
        finally:
            gc.freeze()


def execute(module: ModuleType) -> None:
    """Execute a module that waits for it; nothing happens to any other. Other threads that need it wait meanwhile."""
    if later := module.__dict__.get(_HOW):
        later.execute(module)


class _Absent:
    def __init__(self, modules: frozenset[str]):
        self._modules = modules

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in self._modules:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None


class _Finder:
    def __init__(self, modules: frozenset[str], until: frozenset[str], given: Mapping[str, Mapping[str, object]]):
        self.modules, self.until, self.given = modules, until, given
        self.waiting: list[ModuleType] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in self.until:
            for module in self.waiting:
                execute(module)
        if fullname not in self.modules:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            later: Any = _Later(spec.loader, self.waiting, self.given.get(fullname, {}))
            spec.loader = later
        return spec


class _Later:
    def __init__(self, loader: Loader, waiting: list[ModuleType], given: Mapping[str, object]):
        self._loader, self._waiting, self._given = loader, waiting, given
        self._lock, self._executing = RLock(), False

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__loader__ = module.__spec__.loader = self._loader
        module.__class__, module.__dict__[_HOW] = _Waiting, self
        module.__dict__.update(self._given)
        self._waiting.append(module)

    def execute(self, module: ModuleType) -> None:
        """Nothing where this very thread is at it, or another has done it meanwhile."""
        with self._lock:
            if self._executing or _HOW not in module.__dict__:
                return
            self._executing = True
            for name in self._given:
                module.__dict__.pop(name, None)
            try:
                self._loader.exec_module(module)
            finally:
                self._executing = False
            module.__class__ = ModuleType
            del module.__dict__[_HOW]


class _Waiting(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name not in ("__path__", "__wrapped__"):  # asked of every module, to see what it is
            execute(self)
            if type(self) is ModuleType:
                return getattr(self, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
