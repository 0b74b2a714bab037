"""The list is scikit-learn's, word for word, and extraction does without that library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from moreie.retrieval.stop_words import STOP_WORDS


def test_the_list_is_scikit_learns() -> None:
    assert STOP_WORDS == ENGLISH_STOP_WORDS


def test_extraction_does_not_wait_for_large_libraries(tmp_path: Path) -> None:
    large = "{'sklearn', 'pandas', 'matplotlib', 'peft', 'transformers', 'scipy', 'sympy', 'lancedb'}"
    code = (
        "import sys; from moreie.extractor import Extractor; from moreie.knowledge.corpus import KnowledgeCorpus\n"
        "from moreie.shipped import DEMO_CORPUS, DEMO_POSTS; from moreie.datasets import read_posts\n"
        "if __name__ == '__main__':\n"
        "    extractor = Extractor.from_pretrained(corpus=KnowledgeCorpus.open_apart(DEMO_CORPUS))\n"
        "    extractor.extract(read_posts(DEMO_POSTS)[0])\n"
        f"    print(*{large} & set(sys.modules))"
    )
    program = tmp_path / "program.py"
    program.write_text(code)
    done = subprocess.run([sys.executable, program], check=True, capture_output=True, text=True)
    assert not done.stdout.strip()
