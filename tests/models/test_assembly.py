"""Input assembly: layout, budget, rank order, skipping, markers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moreie.datasets import post_from_text
from moreie.encoders.text import HEAD_END, HEAD_START, SEPARATOR, TAIL_END, TAIL_START, TextEncoder
from moreie.errors import MoreieError
from moreie.models.assembly import EvidenceForm, View, assemble_pairs, assemble_posts, evidence_text
from moreie.models.windows import cut_windows
from moreie.schema import Evidence, Link, Passage

MARKERS = ("plain", "typed")


@pytest.fixture(scope="module")
def encoder(tiny_encoder_folder: Path) -> TextEncoder:
    return TextEncoder.from_pretrained(tiny_encoder_folder)


def evidence(*texts: str) -> list[Evidence]:
    return [
        Evidence(Passage(f"{i}-{hash(t)}", "a", f"Title {i}", t, True), "text", i, 1.0) for i, t in enumerate(texts, 1)
    ]


def test_layout_is_post_separator_passages(encoder: TextEncoder) -> None:
    post = post_from_text("Donald Trump at CNN", id="p")
    view = View("text", EvidenceForm.paragraph, k=2, budget=200)
    (one,) = assemble_posts(encoder, [post], [evidence("First text.", "Second text.", "Third text.")], view)
    tokens = encoder.tokenizer.convert_ids_to_tokens(list(one.input_ids))
    assert tokens[0] == "[CLS]"
    assert tokens[-1] == "[SEP]"
    assert tokens.count(SEPARATOR) == 2, "k = 2 passages, each behind a separator"
    words = encoder.word_subtokens([[w.text for w in post.words]])[0]
    starts = [one.input_ids[a] for a in one.anchors]
    assert starts == [w[0] for w in words]
    assert (one.used, one.dropped) == (2, 0)


def test_a_passage_that_does_not_fit_is_skipped_and_the_next_tried(encoder: TextEncoder) -> None:
    post = post_from_text("Donald Trump at CNN", id="p")
    rows = [evidence("short one.", "very long " * 60, "short two.")]
    view = View("text", EvidenceForm.paragraph, budget=80)
    (one,) = assemble_posts(encoder, [post], rows, view)
    assert len(one.input_ids) <= 80
    assert (one.used, one.dropped) == (2, 1)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.text("abc de.", min_size=1, max_size=60), max_size=6),
    st.integers(20, 120),
    st.sampled_from(EvidenceForm),
)
def test_budget_holds_and_everything_is_counted(
    encoder: TextEncoder, texts: list[str], budget: int, form: EvidenceForm
) -> None:
    post = post_from_text("Donald Trump", id="p")
    (one,) = assemble_posts(encoder, [post], [evidence(*texts)], View("text", form, budget=budget, passage_limit=15))
    assert len(one.input_ids) <= budget
    assert one.used + one.dropped == len(texts)


def test_a_post_is_never_cut_for_the_budget(encoder: TextEncoder) -> None:
    post = post_from_text("Donald Trump " * 20, id="p")
    (one,) = assemble_posts(encoder, [post], [evidence("short.")], View("text", budget=32))
    assert len(one.anchors) == 40
    assert (one.used, one.dropped) == (0, 1)


def test_a_post_longer_than_the_encoder_is_an_error_naming_it(encoder: TextEncoder) -> None:
    post = post_from_text("Donald Trump " * encoder.max_length, id="long-one")
    with pytest.raises(MoreieError, match=r"post long-one: .* sub-tokens"):
        assemble_posts(encoder, [post], [()], View(None, budget=32))


def test_marker_words_of_a_user_are_not_markers(encoder: TextEncoder) -> None:
    post = post_from_text("I like [E1] and [X] a lot", id="p")
    (one,) = assemble_posts(encoder, [post], [()], View(None))
    assert not set(one.input_ids) & set(encoder.marker_ids(HEAD_START, SEPARATOR))


def test_pairs_are_marked_in_either_order_and_when_adjacent(encoder: TextEncoder) -> None:
    post = post_from_text("Donald Trump CNN", id="p")
    person, station = post.mention("PER", 0, 1), post.mention("ORG", 2, 2)
    view = View(None)
    forward, backward = assemble_pairs(encoder, [(post, person, station), (post, station, person)], [(), ()], view)
    markers = {m: encoder.marker_ids(m)[0] for m in (HEAD_START, HEAD_END, TAIL_START, TAIL_END)}
    order = [m for i in forward.input_ids for m, marker in markers.items() if marker == i]
    assert order == [HEAD_START, HEAD_END, TAIL_START, TAIL_END]
    order = [m for i in backward.input_ids for m, marker in markers.items() if marker == i]
    assert order == [TAIL_START, TAIL_END, HEAD_START, HEAD_END]
    for assembled in (forward, backward):
        assert [assembled.input_ids[a] for a in assembled.anchors] == [markers[HEAD_START], markers[TAIL_START]]


def test_typed_markers_say_the_types_that_are_known(encoder: TextEncoder) -> None:
    post = post_from_text("Donald Trump CNN", id="p")
    person, station = post.mention("PER", 0, 1), post.mention(None, 2, 2)
    plain, typed = (assemble_pairs(encoder, [(post, person, station)], [()], View(None, markers=m))[0] for m in MARKERS)
    assert plain.input_ids == assemble_pairs(encoder, [(post, person, station)], [()], View(None))[0].input_ids
    (said,) = encoder.word_subtokens([["PER", ":"]])
    head = [i for piece in said for i in piece]
    at = plain.anchors[0] + 1
    assert typed.input_ids == (*plain.input_ids[:at], *head, *plain.input_ids[at:])
    markers = encoder.marker_ids(HEAD_START, TAIL_START)
    assert [typed.input_ids[a] for a in typed.anchors] == markers


def test_anchors_are_written_into_the_paragraph() -> None:
    text = "He sang in London. He met Queen."
    links = (Link(26, 31, "Queen (band)"), Link(11, 17, "London"), Link(12, 15, "overlaps"), Link(40, 44, "outside"))
    passage = Passage("1", "a", "Bowie", text, True, links=links)
    assert evidence_text(passage, EvidenceForm.anchors) == [
        "Bowie: He sang in <e:London>London</e>. He met <e:Queen (band)>Queen</e>."
    ]
    assert evidence_text(Passage("1", "a", "Bowie", text, True), EvidenceForm.anchors) == [f"Bowie: {text}"]


def test_forms() -> None:
    passage = Passage("1", "a", "Bowie", "He sang. He acted in films.", True, sentence="He acted in films.")
    assert evidence_text(passage, EvidenceForm.sentence) == ["Bowie: He acted in films."]
    assert evidence_text(passage, EvidenceForm.paragraph) == ["Bowie: He sang. He acted in films."]
    assert evidence_text(passage, EvidenceForm.lead) == ["Bowie: He sang.", "He acted in films."]
    untitled = replace(passage, title="")
    assert evidence_text(untitled, EvidenceForm.sentence) == ["He acted in films."]
    assert evidence_text(untitled, EvidenceForm.paragraph) == ["He sang. He acted in films."]
    assert evidence_text(untitled, EvidenceForm.lead) == ["He sang.", "He acted in films."]


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(blacklist_categories=("Cs",)), max_size=400), st.integers(8, 40))
def test_windows_cover_every_word_once_and_keep_to_the_limit(encoder: TextEncoder, text: str, limit: int) -> None:
    post = post_from_text(text, id="p")
    windows = cut_windows(encoder, [post], limit)
    covered = [w.offset + i for w in windows for i in range(len(w.post.words))]
    assert covered == list(range(len(post.words)))
    for window in windows:
        pieces = encoder.word_subtokens([[w.text for w in window.post.words]])[0]
        assert sum(map(len, pieces)) <= limit


def test_windows_prefer_sentence_ends_and_count_straddling_mentions(encoder: TextEncoder) -> None:
    post = post_from_text("one two three . four five six seven eight nine", id="p")
    sizes = [len(ids) for ids in encoder.word_subtokens([[w.text for w in post.words]])[0]]
    limit = sum(sizes[:6])
    gold = (post.mention("PER", 0, 1), post.mention("PER", 3, 4))
    first, *_ = windows = cut_windows(encoder, [replace(post, mentions=gold)], limit)
    assert first.post.words[-1].text == "."
    assert [(m.first, m.last) for m in first.post.mentions] == [(0, 1)]
    assert sum(w.straddling for w in windows) == 1
