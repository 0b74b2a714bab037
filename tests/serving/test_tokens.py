"""Tokens: files, rights, and what is said of wrong ones."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from moreie.errors import MoreieError
from moreie.serving.settings import ServiceSettings
from moreie.serving.tokens import Tokens, parse_tokens, read_tokens

READ, WRITE = "r" * 20, "w" * 20


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()


def test_rights_are_those_of_the_token() -> None:
    tokens = parse_tokens(f"# for the editors\nwrite {WRITE}\n\nread {READ}\n", "file")
    assert tokens.right(f"Bearer {WRITE}") == "write"
    assert tokens.right(f"bearer {READ}") == "read"
    assert tokens.right(basic(READ)) == "read"
    assert tokens.right(basic(WRITE)) == "read", "a browser's password lets nobody write"
    for wrong in (None, "", "Bearer", "Bearer ", f"Bearer {READ}x", f"Token {READ}", "Basic %%%", basic(""), READ):
        assert tokens.right(wrong) is None
    assert Tokens().right("Bearer ") is None
    assert (tokens.needed("read"), Tokens().needed("read"), Tokens().needed("write")) == (True, False, True)
    assert WRITE not in repr(tokens)


@pytest.mark.parametrize(
    "text, said",
    [
        ("write", "line 1: expected"),
        (f"\nadmin {WRITE}", "line 2: expected"),
        (f"read {READ} {READ}", "expected"),
        ("read short", "fewer than 16"),
    ],
)
def test_a_wrong_line_is_named_and_the_token_is_not(text: str, said: str) -> None:
    with pytest.raises(MoreieError, match=said) as problem:
        parse_tokens(text, "file")
    assert READ not in str(problem.value)
    assert "short" not in str(problem.value)


def test_file_and_environment_come_together(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"write {WRITE}\n")
    tokens = read_tokens(file, f"read {READ}")
    assert (len(tokens.read), len(tokens.write)) == (1, 1)
    assert read_tokens(None, None) == Tokens()
    file.write_text("# nothing\n")
    for wrong in (file, tmp_path / "none", tmp_path):
        with pytest.raises(MoreieError, match=str(wrong)):
            read_tokens(wrong, None)


@pytest.mark.parametrize(
    "values",
    [
        {"batch_size": 0},
        {"batch_size": 65},
        {"batch_wait": 2.0},
        {"queue_size": 0},
        {"time_limit": 0},
        {"cors_origins": ("a.example",)},
        {"cors_origins": ("https://a.example/page",)},
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(MoreieError):
        ServiceSettings(**values)  # type: ignore[arg-type]
