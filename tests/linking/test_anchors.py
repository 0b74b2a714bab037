"""Anchors counted, kept and looked up; against counting by hand."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moreie.errors import KnowledgeCorpusError
from moreie.knowledge.build import Sources, build_corpus
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.export import export
from moreie.knowledge.names import normal_name
from moreie.knowledge.update import add
from moreie.linking.anchors import LINK_ROWS, OUTSIDE, WORD_ROWS, AnchorCounts, Anchors, anchors_folder
from moreie.linking.counting import count_anchors, keep_anchors, kept_anchors, page_title


def titles(corpus: KnowledgeCorpus, counts: AnchorCounts) -> dict[str, int]:
    passages = corpus.passages(list(counts.targets))
    return {passages[key].title: count for key, count in counts.targets.items()}


def test_links_are_counted_by_their_text_and_the_article_they_lead_to(linked_corpus: Path) -> None:
    corpus = KnowledgeCorpus.open(linked_corpus)
    anchors = count_anchors(corpus)
    mercury = anchors.counts("mercury")
    assert titles(corpus, mercury) == {"Mercury (planet)": 2, "Mercury (element)": 1}
    assert mercury.outside == 1, "a link to `Mercury` means a page that the corpus lacks, whoever else is called so"
    assert mercury.total == 4
    assert titles(corpus, anchors.counts("sol")) == {"Sun": 1}, "through a redirect"
    assert anchors.counts("nobody") == AnchorCounts()
    assert (anchors.links, anchors.names, anchors.outside) == (7, 4, 1)


def test_words_are_rarer_the_less_they_occur(small_corpus: Path) -> None:
    anchors = count_anchors(KnowledgeCorpus.open(small_corpus))
    assert anchors.links == 0
    assert 0 < anchors.rarity("the") < anchors.rarity("american") < anchors.rarity("quintara")
    lines = (Path(__file__).parents[1] / "data" / "articles.jsonl").read_text(encoding="utf-8").splitlines()
    words = Counter(word for line in lines for word in normal_name(json.loads(line)["paragraphs"][0]).split())
    kept = {word: count for word, count in words.items() if count >= 3}
    for word, count in kept.items():
        assert anchors.rarity(word) == pytest.approx(math.log(sum(kept.values()) / count))


@given(
    st.dictionaries(
        st.tuples(st.text(min_size=1, max_size=6), st.integers(-1, 20)), st.integers(1, 9), min_size=1, max_size=60
    )
)
def test_a_name_finds_its_rows(counted: dict[tuple[str, int], int]) -> None:
    # Sorted as the engine sorts: by bytes.
    rows = sorted(counted.items(), key=lambda row: (row[0][0].encode(), row[0][1]))
    columns = {"name": [n for (n, _), _ in rows], "key": [k for (_, k), _ in rows], "count": [c for _, c in rows]}
    anchors = Anchors("v", pa.table(columns, schema=LINK_ROWS), WORD_ROWS.empty_table())
    for name in {name for name, _ in counted} | {"", "zz", "\U0001f600"}:
        expected = {key: count for (n, key), count in counted.items() if n == name}
        found = anchors.counts(name)
        assert dict(found.targets) == {key: count for key, count in expected.items() if key != OUTSIDE}
        assert found.outside == expected.get(OUTSIDE, 0)


@given(st.text())
def test_a_target_becomes_a_title(target: str) -> None:
    title = page_title(target)
    assert "#" not in title
    assert "_" not in title
    assert title == title.strip()
    assert page_title(title) == title


def test_counts_are_kept_with_their_revision(linked_corpus: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(linked_corpus, tmp_path / "corpus")
    corpus = KnowledgeCorpus.open(folder)
    assert kept_anchors(corpus) is None
    told: list[int] = []
    keep_anchors(corpus, told.append)
    assert sum(told) == corpus.manifest.passages
    kept = kept_anchors(corpus)
    assert kept is not None
    assert kept.counts("mercury") == count_anchors(corpus).counts("mercury")
    assert kept.rarity("the") == count_anchors(corpus).rarity("the")
    more = tmp_path / "more.jsonl"
    link = {"start": 0, "end": 7, "target": "Mercury (element)"}
    row = {"id": "x", "title": "X", "paragraphs": [{"text": "Mercury is heavy.", "links": [link]}]}
    more.write_text(json.dumps(row) + "\n", encoding="utf-8")
    add(folder, Sources(articles=(more,)))
    changed = corpus.latest()
    assert kept_anchors(changed) is None, "counts of another revision"
    assert sorted(titles(changed, keep_anchors(changed).counts("mercury")).values()) == [2, 2]
    (anchors_folder(folder) / "links.arrow").write_bytes(b"damaged")
    assert kept_anchors(changed) is None


def test_where_nothing_can_be_written_is_said(linked_corpus: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(linked_corpus, tmp_path / "corpus")
    anchors_folder(folder).write_text("in the way", encoding="utf-8")
    with pytest.raises(KnowledgeCorpusError, match="cannot be kept there"):
        keep_anchors(KnowledgeCorpus.open(folder))


@pytest.mark.slow
def test_a_corpus_in_milvus_gives_the_counts_of_the_folder(
    linked_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed (it has no build for this platform)")
    export(linked_corpus, tmp_path / "articles.jsonl")
    location = f"milvus:{tmp_path / 'twin.db'}"
    build_corpus(location, Sources(articles=(tmp_path / "articles.jsonl",)))
    monkeypatch.chdir(tmp_path)
    corpus = KnowledgeCorpus.open(location)
    anchors = keep_anchors(corpus)
    folder = KnowledgeCorpus.open(linked_corpus)
    for name in ("mercury", "sun", "merkur", "nobody"):
        assert titles(corpus, anchors.counts(name)) == titles(folder, count_anchors(folder).counts(name))
    assert anchors.rarity("planet") == count_anchors(folder).rarity("planet")
    assert (tmp_path / "twin.db.anchors" / "links.arrow").is_file()
    assert kept_anchors(corpus) is not None
