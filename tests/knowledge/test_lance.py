"""The embedded engine is imported with less work, and does what it did."""

from __future__ import annotations

import subprocess
import sys

import pydantic
import pytest
from lance_namespace_urllib3_client.api.tag_api import TagApi

from moreie.knowledge.stores.lance import lancedb, overrides_unchecked, validators_built_when_called

IMPORTED = """
import pydantic
plain = pydantic.validate_call
from moreie.knowledge.stores.lance import lancedb
from lance_namespace_urllib3_client.api.tag_api import TagApi
print(pydantic.validate_call is plain, callable(lancedb.connect), pydantic.BaseModel.model_config)
try:
    TagApi(None).list_table_tags()
except pydantic.ValidationError as problem:
    print(problem.errors()[0]["type"], problem.errors()[0]["loc"])
"""


def test_its_functions_check_what_they_are_called_with() -> None:
    said = subprocess.run([sys.executable, "-c", IMPORTED], check=True, capture_output=True, text=True).stdout
    assert said.splitlines() == ["True True {}", "missing_argument ('id',)"]
    assert lancedb is sys.modules["lancedb"]
    assert TagApi.__module__ in sys.modules


with validators_built_when_called():

    class Number(pydantic.BaseModel):
        number: Later

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
    assert Number.model_validate({"number": "2"}) == Number(number=2)
    assert Number.model_config == {"defer_build": True}


def fails_within() -> None:
    plain = pydantic.validate_call
    with validators_built_when_called(), overrides_unchecked():
        assert pydantic.validate_call is not plain
        raise KeyError


def test_nothing_is_changed_behind_the_block() -> None:
    plain, checked = pydantic.validate_call, sys.modules.get("overrides")
    with pytest.raises(KeyError):
        fails_within()
    assert pydantic.validate_call is plain
    assert pydantic.BaseModel.model_config == {}
    assert sys.modules.get("overrides") is checked


def test_overriding_methods_are_those_that_were_written() -> None:
    with overrides_unchecked():
        from overrides import EnforceOverrides, override

        class Base(EnforceOverrides):  # type: ignore[misc]
            def said(self) -> int:
                return 1

        class Other(Base):
            @override  # type: ignore[untyped-decorator]
            def said(self) -> int:
                return 2

    assert Other().said() == 2
    assert isinstance(lancedb.connect, type(test_nothing_is_changed_behind_the_block))
