"""Twitter-2015, Twitter-2017 and SNAP: CoNLL columns with an `IMGID:` line before each post."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from moreie.datasets.images import find_image
from moreie.datasets.lines import OnBad, numbered_lines, report
from moreie.datasets.tags import bio_tags, spans_from_tags
from moreie.datasets.words import post_from_words
from moreie.errors import DataFormatError, MoreieError
from moreie.schema import Post

IMAGE_LINE = "IMGID:"


@dataclass
class _Block:
    """Lines of one post, before they are a post."""

    line: int
    image_id: str
    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    spoilt: bool = False


def read_conll(
    path: str | Path,
    *,
    images: str | Path | None = None,
    captions: Mapping[str, str] | None = None,
    on_bad: OnBad | None = None,
) -> list[Post]:
    """Posts with gold mentions; ids are `<file stem>:<n>`, counted from 1.

    `images` is a folder of pictures named by image id.

    Raises:
        DataFormatError: a malformed line, with its number; with `on_bad` it is told instead and the post skipped.
    """
    path, images = Path(path), None if images is None else Path(images)
    posts: list[Post] = []
    for number, block in enumerate(_blocks(path, on_bad), 1):
        if block.spoilt:
            continue  # a bad line of it has been told; its other words would be a wrong post
        if not block.words:
            report(DataFormatError(f"post {block.image_id} has no words", path, block.line), on_bad)
            continue
        try:
            spans = spans_from_tags(block.tags)
        except MoreieError as problem:
            report(DataFormatError(f"post {block.image_id}: {problem}", path, block.line), on_bad)
            continue
        post = post_from_words(
            block.words,
            id=f"{path.stem}:{number}",
            image=find_image(images, block.image_id),
            image_id=block.image_id,
            caption=(captions or {}).get(block.image_id),
        )
        posts.append(replace(post, mentions=tuple(post.mention(*span) for span in spans)))
    return posts


def write_conll(posts: Sequence[Post], path: str | Path) -> None:
    """Write posts with their gold mentions as BIO columns."""
    with Path(path).open("w", encoding="utf-8") as out:
        for post in posts:
            out.write(conll_block(post) + "\n")


def conll_block(post: Post) -> str:
    """The lines of one post."""
    tags = bio_tags(post.mentions or (), len(post.words))
    lines = [f"{word.text}\t{tag}\n" for word, tag in zip(post.words, tags, strict=True)]
    return "".join([f"{IMAGE_LINE}{post.image_id or post.id}\n", *lines])


def _blocks(path: Path, on_bad: OnBad | None) -> Iterator[_Block]:
    block: _Block | None = None
    for number, line in numbered_lines(path):
        if line.startswith(IMAGE_LINE):
            if block is not None:
                yield block
            block = _Block(number, line[len(IMAGE_LINE) :].strip())
            if not block.image_id:
                report(DataFormatError("IMGID: without an id", path, number), on_bad)
                block.spoilt = True
        elif line.strip():
            columns = line.split("\t")
            if block is None:
                report(DataFormatError("a word before the first IMGID: line", path, number), on_bad)
            elif len(columns) != 2 or not columns[1].strip():
                report(DataFormatError(f"expected word<TAB>tag, found {line!r}", path, number), on_bad)
                block.spoilt = True
            else:
                # A few words of the published files are lone spaces or empty: kept, so that positions stay.
                block.words.append(columns[0] or " ")
                block.tags.append(columns[1].strip())
    if block is not None:
        yield block
