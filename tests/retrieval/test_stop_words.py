"""The list is scikit-learn's, word for word, and extraction does without that library."""

from __future__ import annotations

import subprocess
import sys

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from moreie.retrieval.stop_words import STOP_WORDS


def test_the_list_is_scikit_learns() -> None:
    assert STOP_WORDS == ENGLISH_STOP_WORDS


def test_extraction_does_not_wait_for_large_libraries() -> None:
    code = "import sys, moreie.extractor; print(*{'sklearn', 'pandas', 'matplotlib', 'peft'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not done.stdout.strip()
