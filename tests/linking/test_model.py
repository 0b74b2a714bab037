"""The score is the softmax it says it is, and fitting finds its greatest likelihood."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from moreie.errors import MoreieError
from moreie.linking.features import ARTICLE, NIL
from moreie.linking.fitting import PRIOR, Example, best_threshold, fit_weights
from moreie.linking.model import LinkingWeights


def weights(values: np.ndarray) -> LinkingWeights:
    split = len(ARTICLE)
    return LinkingWeights(
        article=dict(zip(ARTICLE, values[:split], strict=True)),
        nil=dict(zip(NIL, values[split:], strict=True)),
        threshold=0.5,
    )


def examples(count: int = 200) -> list[Example]:
    chance = np.random.default_rng(0)
    made = []
    for n in range(count):
        size = int(chance.integers(0, 5))
        articles = chance.random((size, len(ARTICLE)))
        # The first feature tells the right one, mostly.
        right = int(articles[:, 0].argmax()) if size and n % 4 else size
        made.append(Example(articles, np.append(1.0, chance.random(len(NIL) - 1)), right))
    return made


def test_probabilities_are_a_softmax_over_candidates_and_none() -> None:
    chance = np.random.default_rng(1)
    own = weights(chance.normal(size=len(ARTICLE) + len(NIL)))
    articles, nil = chance.random((3, len(ARTICLE))), chance.random(len(NIL))
    powers = [math.exp(sum(own.article[n] * x for n, x in zip(ARTICLE, row, strict=True))) for row in articles]
    powers.append(math.exp(sum(own.nil[n] * x for n, x in zip(NIL, nil, strict=True))))
    assert own.probabilities(articles, nil) == pytest.approx([p / sum(powers) for p in powers])
    assert own.probabilities(np.zeros((0, len(ARTICLE))), nil) == pytest.approx([1.0])


def loss(own: LinkingWeights, some: list[Example]) -> float:
    values = [*own.article.values(), *own.nil.values()]
    likelihood = sum(math.log(own.probabilities(e.articles, e.nil)[e.right]) for e in some)
    return PRIOR / 2 * sum(v * v for v in values) - likelihood


def test_no_other_weights_are_likelier_than_those_fitted() -> None:
    some = examples()
    fitted = fit_weights(some)
    values = np.array([*fitted.article.values(), *fitted.nil.values()])
    least = loss(fitted, some)
    for place in range(len(values)):
        for step in (-0.05, 0.05):
            other = values.copy()
            other[place] += step
            if place < len(ARTICLE) and other[place] < 0:
                continue  # nothing speaks against a candidate
            assert loss(weights(other), some) > least
    assert fitted.article[ARTICLE[0]] == max(fitted.article.values())


def test_the_threshold_makes_most_answers_right() -> None:
    some = examples()
    fitted = fit_weights(some)

    def right(threshold: float) -> int:
        count = 0
        for e in some:
            if len(e.articles):
                sure = fitted.probabilities(e.articles, e.nil)[:-1]
                said = int(sure.argmax()) if sure.max() >= threshold else len(sure)
                count += said == e.right
        return count

    best = best_threshold(fitted, some)
    assert right(best) == max(right(round(t, 2)) for t in np.linspace(0.05, 0.95, 91))


def test_nothing_to_fit_to_is_said() -> None:
    with pytest.raises(MoreieError, match="no links with candidates"):
        fit_weights([Example(np.zeros((0, len(ARTICLE))), np.ones(len(NIL)), 0)])


@pytest.mark.parametrize(
    "content", ["", "{}", '{"article": {}, "nil": {}, "threshold": 0.5}', '{"article": {"context": 1}, "threshold": 9}']
)
def test_weights_that_are_none_are_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    path.write_text(content)
    with pytest.raises(MoreieError, match=r"weights\.json: no weights for linking"):
        LinkingWeights.read(path)
    with pytest.raises(MoreieError, match="absent"):
        LinkingWeights.read(tmp_path / "absent.json")


def test_the_shipped_weights_say_how_they_were_made() -> None:
    shipped = LinkingWeights.read()
    assert {"command", "corpus", "fitted to", "threshold from"} <= shipped.made.keys()
    assert 0 < shipped.threshold < 1
