from __future__ import annotations

from moreie.encoders.subtokens import RememberedSubtokens


def test_a_text_is_tokenized_once_until_all_is_forgotten() -> None:
    asked: list[list[str]] = []

    def letters(texts: list[str]) -> list[list[int]]:
        asked.append(texts)
        return [[ord(c) for c in text] for text in texts]

    remembered = RememberedSubtokens(limit=8)
    assert remembered(["ab", "c", "ab"], letters) == [[97, 98], [99], [97, 98]]
    assert remembered(["c", ""], letters) == [[99], []]
    assert asked == [["ab", "c"], [""]]
    assert remembered(["abcdefg", "c"], letters)[1] == [99], "more than it holds is still answered"
    assert remembered(["c"], letters) == [[99]]
    assert asked[2:] == [["abcdefg"], ["c"]]
