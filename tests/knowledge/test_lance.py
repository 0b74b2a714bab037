"""The embedded engine is imported with less work, and does what it did."""

from __future__ import annotations

import subprocess
import sys

import pydantic
import pytest
from lance_namespace_urllib3_client.api.tag_api import TagApi

from moreie.knowledge.stores.lance import lancedb, validators_built_when_called

IMPORTED = """
import pydantic
plain = pydantic.validate_call
from moreie.knowledge.stores.lance import lancedb
from lance_namespace_urllib3_client.api.tag_api import TagApi
print(pydantic.validate_call is plain, callable(lancedb.connect))
try:
    TagApi(None).list_table_tags()
except pydantic.ValidationError as problem:
    print(problem.errors()[0]["type"], problem.errors()[0]["loc"])
"""


def test_its_functions_check_what_they_are_called_with() -> None:
    said = subprocess.run([sys.executable, "-c", IMPORTED], check=True, capture_output=True, text=True).stdout
    assert said.splitlines() == ["True True", "missing_argument ('id',)"]
    assert lancedb is sys.modules["lancedb"]
    assert TagApi.__module__ in sys.modules


with validators_built_when_called():

    @pydantic.validate_call
    def doubled(number: Later) -> Later:
        return 2 * number

    @pydantic.validate_call(config=pydantic.ConfigDict(strict=True), validate_return=True)
    def strictly_doubled(number: Later) -> Later:
        return 2 * number


Later = int
"""Not there yet when the functions above were defined: their validators are built when they are called."""


def test_validators_are_built_at_the_first_call() -> None:
    assert doubled(2) == strictly_doubled(2) == 4
    assert doubled("2") == 4  # type: ignore[arg-type]
    with pytest.raises(pydantic.ValidationError, match="valid integer"):
        doubled("two")  # type: ignore[arg-type]
    with pytest.raises(pydantic.ValidationError, match="valid integer"):
        strictly_doubled("2")  # type: ignore[arg-type]


def fails_within() -> None:
    plain = pydantic.validate_call
    with validators_built_when_called():
        assert pydantic.validate_call is not plain
        raise KeyError


def test_nothing_is_changed_behind_the_block() -> None:
    plain = pydantic.validate_call
    with pytest.raises(KeyError):
        fails_within()
    assert pydantic.validate_call is plain
