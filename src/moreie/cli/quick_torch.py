"""torch, imported in less than two thirds of the time by a command that is over in a second."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version

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
    "dill",
    "unittest.mock",
)
COMPILES = ("accelerate", "peft", "torch._dynamo", "transformers")
"""What works on tensors without numbers."""


def import_torch() -> None:
    """Import torch; parts that no extraction uses are executed when something does."""
    if "torch" not in sys.modules and version("torch").startswith(TRIED):
        with deferring(UNUSED, until=COMPILES), _places_alone(), _numpy_alone():
            import torch  # noqa: F401


@contextmanager
def _places_alone() -> Iterator[None]:
    """Within the block what is asked where a frame is gets its file and line without the line's text, which torch does
    not read and Python would look for among all modules, each of their files resolved."""
    plain = inspect.getframeinfo
    inspect.getframeinfo = partial(plain, context=0)  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.getframeinfo = plain


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
