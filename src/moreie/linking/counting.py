"""Anchors counted in one pass over the paragraphs of a corpus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from moreie.errors import KnowledgeCorpusError
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.names import normal_name, title_names
from moreie.knowledge.stores.store import PASSAGES
from moreie.linking.anchors import LINK_ROWS, OUTSIDE, RAREST, WORD_ROWS, Anchors, anchors_folder

Progress = Callable[[int], None]
# So many groups wait at least before they are put together with those before them.
GROUPS_WAITING = 4_000_000
_COUNT = pa.field("count", pa.int64())


def anchors_of(corpus: KnowledgeCorpus) -> Anchors:
    """The anchors kept with a corpus, else those counted now, which are not kept (`keep_anchors` does that).

    Raises:
        KnowledgeCorpusError: the corpus is damaged.
    """
    return kept_anchors(corpus) or count_anchors(corpus)


def kept_anchors(corpus: KnowledgeCorpus) -> Anchors | None:
    """The anchors kept with a corpus; None where there are none of this revision."""
    return Anchors.load(anchors_folder(corpus.location), corpus.version)


def keep_anchors(corpus: KnowledgeCorpus, progress: Progress = lambda passages: None) -> Anchors:
    """Count the anchors of a corpus and keep them with it, in place of those of another revision.

    Raises:
        KnowledgeCorpusError: the corpus is damaged, or nothing can be written beside it.
    """
    anchors = count_anchors(corpus, progress)
    folder = anchors_folder(corpus.location)
    try:
        anchors.save(folder)
    except OSError as problem:
        raise KnowledgeCorpusError(f"{folder}: the anchors cannot be kept there ({problem})") from problem
    return anchors


def count_anchors(corpus: KnowledgeCorpus, progress: Progress = lambda passages: None) -> Anchors:
    """Count the anchors of a corpus; `progress` hears of passages read.

    Raises:
        KnowledgeCorpusError: the corpus is damaged.
    """
    pairs, words = _Tally(["name", "target"]), _Tally(["word"])
    titles: list[pa.Table] = []
    for batch in corpus.scan(PASSAGES, ["key", "title", "text", "introduction", "links"]):
        linked = batch.filter(pc.fill_null(pc.greater(pc.list_value_length(batch["links"]), 0), False))
        pairs.add(_pairs(linked.select(["text", "links"]).to_pylist()))
        words.add(pa.table({"word": _words(batch.filter(batch["introduction"])["text"])}))
        titles.append(_firsts(batch.select(["title", "key"])))
        progress(len(batch))
    links = _resolved(corpus, pairs.finish(), _firsts(pa.concat_tables(titles)))
    counted = words.finish()
    counted = counted.filter(pc.greater_equal(counted["count"], RAREST)).sort_by("word").cast(WORD_ROWS)
    return Anchors(corpus.version, links, counted)


def page_title(target: str) -> str:
    """The title that a link's target means: without a section, underscores as spaces, its first letter a capital."""
    title = target.partition("#")[0].replace("_", " ").strip()
    return title[:1].upper() + title[1:]


def _pairs(rows: Sequence[dict[str, Any]]) -> pa.Table:
    named = [
        (normal_name(row["text"][link["start"] : link["end"]]), page_title(link["target"]))
        for row in rows
        for link in row["links"]
    ]
    kept = [(name, title) for name, title in named if name and title]
    columns = {"name": [name for name, _ in kept], "target": [title for _, title in kept]}
    return pa.table(columns, schema=pa.schema([("name", pa.string()), ("target", pa.string())]))


def _words(texts: pa.ChunkedArray) -> pa.Array:
    """All words of the texts, as `normal_name` splits them."""
    plain = pc.replace_substring_regex(pc.utf8_normalize(pc.utf8_lower(texts), "NFKD"), r"\p{M}+", "")
    words = pc.list_flatten(pc.utf8_split_whitespace(pc.replace_substring_regex(plain, r"[^\p{L}\p{N}]+", " ")))
    return words.filter(pc.not_equal(words, ""))


def _firsts(rows: pa.Table) -> pa.Table:
    """The first key of each title."""
    return rows.group_by("title").aggregate([("key", "min")]).rename_columns({"key_min": "key"})


class _Tally:
    """Rows of strings counted as they come."""

    def __init__(self, columns: Sequence[str]):
        self._columns = [*columns]
        self._counted: list[pa.Table] = []

    def add(self, rows: pa.Table) -> None:
        counted = rows.group_by(self._columns).aggregate([([], "count_all")]).rename_columns({"count_all": "count"})
        self._counted.append(counted.select([*self._columns, "count"]))
        if sum(map(len, self._counted[1:])) > max(GROUPS_WAITING, len(self._counted[0])):
            self._counted = [self.finish()]

    def finish(self) -> pa.Table:
        schema = pa.schema([*((name, pa.string()) for name in self._columns), _COUNT])
        together = pa.concat_tables(self._counted) if self._counted else schema.empty_table()
        summed = together.group_by(self._columns).aggregate([("count", "sum")]).rename_columns({"count_sum": "count"})
        return summed.select([*self._columns, "count"])


def _resolved(corpus: KnowledgeCorpus, pairs: pa.Table, firsts: pa.Table) -> pa.Table:
    """Links by the key of the article they lead to: the one of that title, or the only one that the target is a further
    name of."""
    titles, keys = (firsts[name].combine_chunks() for name in ("title", "key"))
    found = pc.take(keys, pc.index_in(pairs["target"], value_set=titles))
    lost = pc.unique(pairs["target"].filter(pc.is_null(found)))
    others = called_otherwise(corpus, lost.to_pylist(), firsts)
    renamed = pa.array([others.get(title, OUTSIDE) for title in lost.to_pylist()], pa.int64())
    found = pc.coalesce(found, pc.take(renamed, pc.index_in(pairs["target"], value_set=lost)))
    links = pa.table({"name": pairs["name"], "key": found, "count": pairs["count"]})
    summed = links.group_by(["name", "key"]).aggregate([("count", "sum")]).rename_columns({"count_sum": "count"})
    ordered = summed.select(LINK_ROWS.names).sort_by([("name", "ascending"), ("key", "ascending")])
    return ordered.cast(LINK_ROWS)


def called_otherwise(corpus: KnowledgeCorpus, targets: Sequence[str], firsts: pa.Table) -> dict[str, int]:
    """Articles that are not of these titles but called so: by a redirect, or but for case, accents and punctuation."""
    forms = {target: normal_name(target) for target in targets}
    named = corpus.named_keys(sorted({form for form in forms.values() if form})) or {}
    keys = pa.array({key for found in named.values() for key in found}, pa.int64())
    bearers = firsts.filter(pc.is_in(firsts["key"], value_set=keys))
    titles = dict(zip(bearers["key"].to_pylist(), bearers["title"].to_pylist(), strict=True))
    found = {}
    for target, form in forms.items():
        own = [key for key in named.get(form, ()) if key in titles and _means(form, titles[key])]
        if len(own) == 1:
            found[target] = own[0]
    return found


def _means(name: str, title: str) -> bool:
    # `Mercury (planet)` is called mercury too, but a link to `Mercury` means another page.
    return normal_name(title) == name or name not in title_names(title)
