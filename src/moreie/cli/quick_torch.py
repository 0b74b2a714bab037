"""torch, imported in less than two thirds of the time by commands that extract."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from types import ModuleType

from moreie.starting import deferring

TRIED = "2.13."
"""Versions of torch whose modules are known to bear it."""

UNUSED = (
    "torch._meta_registrations",  # what operations do to tensors without numbers, in Python: a fifth of the import
    "torch.distributions",
    "torch.export",
    "torch.fx.passes",
    "torch.masked",
    "torch.nested",
    "torch.nn.attention",
    "torch.nn.intrinsic",
    "torch.optim",
    "torch.profiler",
    "torch.utils.data",
    "torchgen.model",
    "unittest.mock",
)
STAND_INS = {"numpy._typing": {"NDArray": list}}
"""What is there to annotate, unions of hundreds of literals; NumPy itself asks for one name, to annotate with it."""
COMPILES = ("accelerate", "peft", "torch._dynamo", "transformers")
"""What works on tensors without numbers."""


def import_torch() -> None:
    """Import torch; parts that no extraction uses are executed when something does."""
    if "torch" not in sys.modules and version("torch").startswith(TRIED):
        with deferring(UNUSED, until=COMPILES, given=STAND_INS), _modules_by_name(), _numpy_alone():
            import torch  # noqa: F401


@contextmanager
def _modules_by_name() -> Iterator[None]:
    """Within the block a frame's module is the one of the name that it runs under. Python would resolve the paths of
    all modules' files and compare them, a tenth of the import."""
    plain = inspect.getmodule

    def module_of(thing: object, _filename: str | None = None) -> ModuleType | None:
        if inspect.isframe(thing):
            return sys.modules.get(thing.f_globals.get("__name__", ""))
        return plain(thing, _filename)

    inspect.getmodule = module_of  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.getmodule = plain


@contextmanager
def _numpy_alone() -> Iterator[None]:
    """NumPy imported within the block computes in one thread: others would wait busily on the processor that the
    knowledge corpus is read on meanwhile. Torch's threads are its own."""
    name = "OPENBLAS_NUM_THREADS"
    asked = name in os.environ
    os.environ.setdefault(name, "1")
    try:
        yield
    finally:
        if not asked:
            del os.environ[name]
