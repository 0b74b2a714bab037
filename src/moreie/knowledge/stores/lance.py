"""LanceDB, imported in two thirds of the time.

It imports a client of a REST service, which nothing here speaks to: 366 functions whose arguments are validated and 150
models of messages. Their validators are built when they are first used, not when they are defined.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from types import ModuleType
from typing import Any

import pydantic


@contextmanager
def validators_built_when_called() -> Iterator[None]:
    """Validators of functions decorated with `pydantic.validate_call` within the block are built at the first call,
    those of models defined in it as if they had asked for `defer_build`."""
    plain, config = pydantic.validate_call, pydantic.BaseModel.model_config

    def deferred(function: Callable[..., Any] | None = None, /, **how: Any) -> Any:
        if function is None:
            return lambda decorated: deferred(decorated, **how)
        validated = cache(lambda: plain(**how)(function))

        @wraps(function)
        def call(*positional: Any, **named: Any) -> Any:
            return validated()(*positional, **named)

        return call

    pydantic.validate_call = deferred
    pydantic.BaseModel.model_config = pydantic.ConfigDict(**{**config, "defer_build": True})  # type: ignore[typeddict-item]
    try:
        yield
    finally:
        pydantic.validate_call, pydantic.BaseModel.model_config = plain, config


@contextmanager
def overrides_unchecked() -> Iterator[None]:
    """Within the block methods are not compared with those that they override: a tenth of the import, which LanceDB
    itself leaves out from Python 3.12 on."""
    unchecked: Any = ModuleType("overrides")
    unchecked.override, unchecked.EnforceOverrides = lambda method: method, type("EnforceOverrides", (), {})
    before = sys.modules.get("overrides")
    sys.modules["overrides"] = unchecked
    try:
        yield
    finally:
        if before is None:
            del sys.modules["overrides"]
        else:
            sys.modules["overrides"] = before


with validators_built_when_called(), overrides_unchecked():
    import lancedb
    from lancedb.background_loop import LOOP
    from lancedb.index import FTS, Bitmap, BTree
    from lancedb.query import FullTextOperator, MatchQuery

__all__ = ["FTS", "LOOP", "BTree", "Bitmap", "FullTextOperator", "MatchQuery", "lancedb"]
