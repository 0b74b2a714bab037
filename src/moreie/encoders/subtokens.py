"""Sub-tokens of texts, remembered: posts repeat words, and several experts read the same posts and passages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Tokenize = Callable[[list[str]], list[list[int]]]


class RememberedSubtokens:
    """What a tokenizer made of texts before. Above `limit` sub-tokens (some 40 bytes each) all is forgotten."""

    def __init__(self, limit: int):
        self.limit = limit
        self._known: dict[str, list[int]] = {}
        self._held = 0

    def __call__(self, texts: Sequence[str], tokenize: Tokenize) -> list[Sequence[int]]:
        """Sub-token ids of each text; those not seen before are tokenized, in one call."""
        known = self._known  # another thread may forget: this one goes on with what it holds
        if new := [text for text in dict.fromkeys(texts) if text not in known]:
            made = tokenize(new)
            known.update(zip(new, made, strict=True))
            self._held += sum(map(len, made))
        found: list[Sequence[int]] = [known[text] for text in texts]
        if self._held > self.limit:
            self.forget()
        return found

    def forget(self) -> None:
        """Hold nothing again."""
        self._known, self._held = {}, 0
