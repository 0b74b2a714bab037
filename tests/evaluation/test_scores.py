"""Metrics against seqeval and scikit-learn, significance against its definition."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import classification_report, f1_score, precision_score, recall_score
from sklearn.metrics import precision_recall_fscore_support

from moreie.datasets import read_conll
from moreie.datasets.tags import spans_from_tags
from moreie.errors import MoreieError
from moreie.evaluation.calibration import expected_calibration_error, reliability
from moreie.evaluation.confusion import mention_confusion, relation_confusion
from moreie.evaluation.ner import mention_counts, mention_scores
from moreie.evaluation.predictions import Evaluation, mean_flips
from moreie.evaluation.relation import accuracy, relation_counts, relation_scores
from moreie.evaluation.scores import micro_scores
from moreie.evaluation.significance import paired_bootstrap, paired_randomisation

TAGS = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"])
PAIRS = st.lists(st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=12), min_size=1, max_size=6)


def spans(rows: list[list[str]]) -> list[list[tuple[str, int, int]]]:
    return [spans_from_tags(row) for row in rows]


@settings(max_examples=300, deadline=None)
@given(PAIRS)
def test_ner_scores_equal_seqeval_on_random_sequences(rows: list[list[tuple[str, str]]]) -> None:
    gold, guess = ([[pair[i] for pair in row] for row in rows] for i in (0, 1))
    ours = mention_scores(spans(gold), spans(guess))["micro"]
    theirs = [100 * f(gold, guess, zero_division=0) for f in (precision_score, recall_score, f1_score)]
    assert [ours.precision, ours.recall, ours.f1] == pytest.approx(theirs)


def test_ner_scores_equal_seqeval_on_real_posts(data: Path) -> None:
    rng = np.random.default_rng(0)
    gold = []
    for post in read_conll(data / "twitter2017-sample.txt"):
        tags = ["O"] * len(post.words)
        for m in post.mentions or ():
            tags[m.first : m.last + 1] = [f"B-{m.type}", *[f"I-{m.type}"] * (m.last - m.first)]
        gold.append(tags)
    guess = [[t if rng.random() < 0.8 else "O" for t in row] for row in gold]
    report = classification_report(gold, guess, output_dict=True, zero_division=0)
    ours = mention_scores(spans(gold), spans(guess))
    assert ours["micro"].f1 == pytest.approx(100 * report["micro avg"]["f1-score"])
    for type in {t[2:] for row in gold for t in row if t != "O"}:
        assert ours[type].f1 == pytest.approx(100 * report[type]["f1-score"])


LABELS = ["None", "/per/loc/place_of_birth", "/per/per/couple", "/loc/loc/contain"]


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=60))
def test_relation_scores_equal_sklearn(pairs: list[tuple[str, str]]) -> None:
    gold, guess = [a for a, _ in pairs], [b for _, b in pairs]
    ours = relation_scores(gold, guess)
    p, r, f, _ = precision_recall_fscore_support(gold, guess, labels=LABELS[1:], average="micro", zero_division=0)
    assert (ours["micro"].precision, ours["micro"].recall) == pytest.approx((100 * p, 100 * r))
    assert ours["micro"].f1 == pytest.approx(100 * f)
    _, _, each, _ = precision_recall_fscore_support(gold, guess, labels=LABELS[1:], average=None, zero_division=0)
    for label, value in zip(LABELS[1:], each, strict=True):
        if label in ours:
            assert ours[label].f1 == pytest.approx(100 * value)
    assert accuracy(gold, guess) == pytest.approx(100 * np.mean([a == b for a, b in pairs]))


def test_none_alone_scores_nothing() -> None:
    assert relation_counts(["None"], ["None"]).tolist() == [[0, 0, 0]]
    assert micro_scores(relation_counts(["None"], ["None"])).f1 == 0.0


def test_randomisation_equals_full_enumeration() -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(1, 4, 8)
    ours, theirs = (np.stack([rng.binomial(gold, p), rng.integers(1, 4, 8), gold], axis=1) for p in (0.9, 0.5))

    def f1(counts: np.ndarray) -> float:
        right, guessed, total = counts.sum(0)
        return 2 * right / (guessed + total)

    observed = abs(f1(ours) - f1(theirs))
    extreme = []
    for swap in itertools.product([False, True], repeat=len(gold)):
        mask = np.array(swap)[:, None]
        difference = f1(np.where(mask, theirs, ours)) - f1(np.where(mask, ours, theirs))
        extreme.append(abs(difference) >= observed - 1e-12)
    assert paired_randomisation(ours, theirs) == pytest.approx(np.mean(extreme), abs=0.02)


def test_significance_of_the_same_and_of_other_cases() -> None:
    counts = mention_counts([[("PER", 0, 1)]], [[("PER", 0, 1)]])
    assert paired_randomisation(counts, counts) == 1.0
    with pytest.raises(MoreieError, match="same cases"):
        paired_randomisation(counts, np.concatenate([counts, counts]))
    once = np.tile([[1, 1, 1]], (5, 1))
    twice = once.copy()
    once[0, 0] = twice[:2, 0] = 0
    right = np.ones_like(once)
    assert paired_randomisation(right, once) == 1.0, "one answer that differs says nothing"
    assert paired_randomisation(right, twice) == pytest.approx(0.5), "two swaps of four are as far from 0"
    better = np.tile([[1, 1, 1]], (200, 1))
    worse = np.tile([[0, 1, 1]], (200, 1))
    assert paired_randomisation(better, worse) < 0.001


def test_flips_are_answers_gained_and_lost() -> None:
    gold = [[("PER", 0, 1), ("LOC", 3, 3)], [("ORG", 0, 0)], []]
    base = [[("PER", 0, 1)], [("ORG", 0, 0)], [("PER", 2, 2)]]
    ours = [[("LOC", 3, 3)], [("ORG", 0, 0)], []]
    spans = Evaluation("ner", 1, ["a", "b", "c"], gold, {"baseline": base, "text": ours}, (), torch.empty(3, 0), [])
    assert spans.flips("text") == (1, 1)
    labels = {"baseline": ["x", "None", "x"], "text": ["None", "None", "y"]}
    pairs = Evaluation("re", 1, ["a", "b", "c"], ["x", "None", "y"], labels, (), torch.empty(3, 0), [])
    assert pairs.flips("text") == (1, 1)
    assert mean_flips([pairs, pairs], "text") == (1.0, 1.0)
    assert mean_flips([pairs], "baseline") is None
    assert Evaluation("re", 1, [], [], {"text": []}, (), torch.empty(0, 0), []).flips("text") is None


def test_bootstrap_equals_drawing_posts_and_seeds_one_by_one() -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(1, 4, 40)
    ours, theirs = (
        [np.stack([rng.binomial(gold, p), rng.integers(1, 4, 40), gold], axis=1) for _ in range(3)] for p in (0.9, 0.8)
    )

    def f1(counts: np.ndarray) -> float:
        return micro_scores(counts).f1

    drawn = []
    for _ in range(2000):
        cases, seeds = rng.integers(0, 40, 40), rng.integers(0, 3, 3)
        drawn.append(np.mean([f1(ours[s][cases]) - f1(theirs[s][cases]) for s in seeds]))
    gain = paired_bootstrap(ours, theirs)
    assert (gain.low, gain.high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=1.5)
    share = min(np.mean(np.array(drawn) <= 0), np.mean(np.array(drawn) >= 0))
    assert gain.p_value == pytest.approx(2 * share, abs=0.03)


def test_bootstrap_of_equal_and_of_clearly_better_systems() -> None:
    better, worse = np.tile([[1, 1, 1]], (200, 1)), np.tile([[0, 1, 1], [1, 1, 1]], (100, 1))
    assert paired_bootstrap([better] * 3, [better] * 3).p_value == 1.0
    gain = paired_bootstrap([better] * 3, [worse] * 3)
    assert gain.p_value < 0.001
    assert gain.low < 50 < gain.high
    with pytest.raises(MoreieError, match="same cases"):
        paired_bootstrap([better], [worse[:10]])


def test_confusion_counts_every_answer_once() -> None:
    gold = [[("PER", 0, 1), ("LOC", 3, 3)], [("ORG", 0, 0)]]
    guess = [[("ORG", 0, 1), ("LOC", 3, 4)], [("ORG", 0, 0)]]
    found = mention_confusion(gold, guess)
    assert (found.gold, found.predicted) == (("LOC", "ORG", "PER", "spurious"), ("LOC", "ORG", "PER", "missed"))
    assert found.counts.tolist() == [[0, 0, 0, 1], [0, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]]
    pairs = relation_confusion(["None", "a", "a"], ["a", "a", "None"])
    assert pairs.gold == pairs.predicted == ("None", "a")
    assert pairs.counts.tolist() == [[0, 1], [1, 1]]


def test_reliability_bins() -> None:
    bins = reliability([0.05, 0.95, 1.0], [False, True, False], bins=10)
    assert bins.size.tolist() == [1, *[0] * 8, 2]
    assert bins.right.tolist() == [0, *[0] * 8, 1]
    assert bins.expected_error == pytest.approx((0.05 + 0.95) / 3)


def test_calibration_error() -> None:
    assert expected_calibration_error([], []) == 0.0
    assert expected_calibration_error([1.0, 1.0], [True, True]) == 0.0
    assert expected_calibration_error([0.9] * 10, [True] * 5 + [False] * 5) == pytest.approx(0.4)
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    assert expected_calibration_error(p, rng.random(20_000) < p) < 0.02
