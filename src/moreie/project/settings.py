"""Settings to begin with, by the size of the data, the encoder and the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# So many examples, repetitions counted, MiniLM under an adapter was shown to learn Twitter-2017 (3 373 posts, three
# times); fewer posts are read more often, but not for ever.
SHOWN = 10_000
MOST_EPOCHS = 20
SMALL = 500


@dataclass(frozen=True, slots=True)
class Settings:
    """Of the experts' common beginning (`epochs`, the learning rates), and of what each then learns alone (`further`,
    the same rates times `slower`). `whole`: the encoder itself is tuned, without an adapter."""

    whole: bool
    epochs: int
    further: int
    batch_size: int
    learning_rate: float
    head_learning_rate: float
    crf_learning_rate: float
    slower: float
    budget: int


def settings_for(task: Literal["ner", "re"], examples: int, *, shipped: bool, gpu: bool) -> Settings:
    """`examples`: training posts, or pairs for relations. `shipped`: the encoder is the one that ships with moreie."""
    batch = 8 if examples < SMALL else 16
    least = 3 if task == "ner" else 2
    epochs = min(MOST_EPOCHS, max(least, round(SHOWN / max(1, examples))))
    whole = gpu and not shipped
    rate = 1e-3 if shipped else 2e-5 if whole else 5e-4
    return Settings(
        whole=whole,
        epochs=epochs,
        further=max(least - 1, epochs // 3),
        batch_size=batch,
        learning_rate=rate,
        head_learning_rate=1e-3,
        crf_learning_rate=1e-2,
        slower=0.2 if task == "ner" else 0.3,
        budget=(128 if task == "ner" else 96) if shipped else 256,
    )
