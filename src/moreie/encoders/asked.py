"""The arithmetic that the environment asks for, without what computes in it: commands look before they load it."""

from __future__ import annotations

import os

from moreie.errors import EncoderError

VARIABLE = "MOREIE_PRECISION"


def wants_float32() -> bool:
    """Whether everything is to be computed in float32, whatever the machine is fast in.

    Raises:
        EncoderError: the environment asks for something that is not there.
    """
    asked = os.environ.get(VARIABLE) or "auto"
    if asked not in ("auto", "float32"):
        raise EncoderError(f"{VARIABLE}={asked}: it may be auto (what the machine is fast in) or float32")
    return asked == "float32"
