"""Extractors that commands load."""

from __future__ import annotations

import subprocess
import sys

REFUSED = """
import os, sys
from moreie.cli.loading import load_extractor
from moreie.errors import MoreieError

for asked in ({"certainty": None, "threshold": 1.0}, {"certainty": 0.0, "threshold": None}):
    try:
        load_extractor(None, None, **asked)
    except MoreieError as problem:
        print(problem, "torch" in sys.modules)
os.environ["MOREIE_PRECISION"] = "half"
try:
    load_extractor(None, None, certainty=None, threshold=None)
except MoreieError as problem:
    print(problem, "torch" in sys.modules)
"""


def test_what_cannot_be_asked_for_is_refused_before_a_model_is_loaded() -> None:
    said = subprocess.run([sys.executable, "-c", REFUSED], check=True, capture_output=True, text=True).stdout
    assert said.splitlines() == [
        "threshold 1: give a probability from 0.01 up to below 1, such as 0.4 False",
        "certainty 0: give a probability above 0 and up to 1, such as 0.9 False",
        "MOREIE_PRECISION=half: it may be auto (what the machine is fast in) or float32 False",
    ]
