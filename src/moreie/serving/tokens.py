"""Access tokens: what their bearer may do, from a file or the environment, compared in constant time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moreie.errors import MoreieError

Right = Literal["read", "write"]
SHORTEST = 16


@dataclass(frozen=True, slots=True)
class Tokens:
    """SHA-256 digests of the tokens of each right; who may write may read. Without a `read` token anybody may read,
    without a `write` token nobody may write."""

    read: tuple[bytes, ...] = ()
    write: tuple[bytes, ...] = ()

    def needed(self, right: Right) -> bool:
        return right == "write" or bool(self.read)

    def right(self, authorization: str | None) -> Right | None:
        """What the value of an Authorization header entitles to; None for a wrong token or none.

        `Bearer TOKEN`; also `Basic` with a token as the password, which browsers ask for, and which lets nobody write:
        browsers send it with what other sites make them send.
        """
        scheme, _, value = (authorization or "").partition(" ")
        token = value.strip() if scheme.lower() == "bearer" else _password(value) if scheme.lower() == "basic" else ""
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        # Every token is compared, so that the time says nothing about which, or about how many.
        write = sum(hmac.compare_digest(digest, known) for known in self.write)
        read = sum(hmac.compare_digest(digest, known) for known in self.read)
        if write and scheme.lower() == "bearer":
            return "write"
        return "read" if read or write else None


NO_TOKENS = Tokens()


def parse_tokens(text: str, source: str) -> Tokens:
    """Tokens of lines `read TOKEN` and `write TOKEN`; empty lines and such that begin with # say nothing.

    Raises:
        MoreieError: a line of another form, or a token that is too short; `source` and the line are named, the token is
            not.
    """
    found: dict[str, list[bytes]] = {"read": [], "write": []}
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.split()
        if not parts or parts[0].startswith("#"):
            continue
        if len(parts) != 2 or parts[0] not in found:
            raise MoreieError(f"{source}, line {number}: expected `read TOKEN` or `write TOKEN`")
        if len(parts[1]) < SHORTEST:
            raise MoreieError(
                f"{source}, line {number}: a token of fewer than {SHORTEST} characters can be guessed; "
                "`openssl rand -hex 32` makes one"
            )
        found[parts[0]].append(hashlib.sha256(parts[1].encode()).digest())
    return Tokens(tuple(found["read"]), tuple(found["write"]))


def read_tokens(file: Path | None, environment: str | None) -> Tokens:
    """Tokens of a file and of an environment variable's value (both optional, both in the form of `parse_tokens`).

    Raises:
        MoreieError: the file cannot be read, holds no token, or has a wrong line.
    """
    tokens = parse_tokens(environment or "", "MOREIE_TOKENS")
    if file is None:
        return tokens
    try:
        own = parse_tokens(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as problem:
        raise MoreieError(f"{file}: tokens cannot be read ({problem})") from problem
    if not own.read and not own.write:
        raise MoreieError(f"{file}: holds no token; lines are `read TOKEN` or `write TOKEN`")
    return Tokens(tokens.read + own.read, tokens.write + own.write)


def _password(value: str) -> str:
    try:
        return base64.b64decode(value.strip(), validate=True).decode("utf-8").partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
