"""LanceDB, imported in two thirds of the time.

It imports a client of a REST service, which nothing here speaks to, of 366 functions whose arguments are validated.
Their validators are built when a function is called here, not when it is defined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pydantic


@contextmanager
def validators_built_when_called() -> Iterator[None]:
    """What is defined within the block with `pydantic.validate_call` is as if it had asked for `defer_build`."""
    plain = pydantic.validate_call

    def deferred(
        function: Callable[..., Any] | None = None,
        /,
        *,
        config: pydantic.ConfigDict | None = None,
        validate_return: bool = False,
    ) -> Any:
        config = pydantic.ConfigDict(**{**(config or {}), "defer_build": True})  # type: ignore[typeddict-item]
        decorated = plain(config=config, validate_return=validate_return)
        return decorated if function is None else decorated(function)

    pydantic.validate_call = deferred
    try:
        yield
    finally:
        pydantic.validate_call = plain


with validators_built_when_called():
    import lancedb
    from lancedb.background_loop import LOOP
    from lancedb.index import FTS, Bitmap, BTree
    from lancedb.query import FullTextOperator, MatchQuery

__all__ = ["FTS", "LOOP", "BTree", "Bitmap", "FullTextOperator", "MatchQuery", "lancedb"]
