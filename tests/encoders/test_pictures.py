"""Pictures of posts embedded in batches, and posts without one told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moreie.datasets import post_from_text, read_jsonl
from moreie.encoders.batches import computing_with
from moreie.encoders.images import ImageEncoder
from moreie.encoders.pictures import embed_pictures
from moreie.errors import ImageError
from moreie.shipped import DEMO_POSTS, IMAGE_ENCODER


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    return ImageEncoder.from_pretrained(IMAGE_ENCODER)


def test_each_post_has_its_pictures_row_whatever_the_batch(encoder: ImageEncoder, tmp_path: Path) -> None:
    files = [post.image for post in read_jsonl(DEMO_POSTS) if post.image is not None][:3]
    (tmp_path / "broken.jpg").write_bytes(b"")
    images = [files[0], None, files[1], files[0], tmp_path / "broken.jpg", files[2]]
    posts = [post_from_text("a post", id=str(i), image=image) for i, image in enumerate(images)]
    embedded = embed_pictures(posts, encoder, batch_size=2)
    expected = encoder.encode(files)
    assert embedded.rows.tolist() == [0, 2, 3, 5]
    assert np.allclose(embedded.vectors[[0, 2, 5]], expected, atol=2e-3)
    assert np.array_equal(embedded.vectors[0], embedded.vectors[3]), "one file, one vector"
    assert np.isnan(embedded.vectors[[1, 4]]).all()
    assert embedded.warnings[1] == ("no picture",)
    assert "broken.jpg" in embedded.warnings[4][0]
    said = embedded.shortfall
    assert said.startswith("of 6 posts 1 have no picture, 1 have one that cannot be read (the first: ")
    assert "broken.jpg" in said


@pytest.mark.parametrize("threads", [1, 2])
def test_files_that_are_no_pictures_are_told_of_in_their_places(
    encoder: ImageEncoder, tmp_path: Path, threads: int
) -> None:
    files = [post.image for post in read_jsonl(DEMO_POSTS) if post.image is not None][:3]
    broken = [tmp_path / f"{i}.jpg" for i in range(8)]
    for path in broken:
        path.write_bytes(b"no picture")
    asked = [*broken[:4], files[0], files[1], broken[4], files[2], *broken[5:]]
    with computing_with(threads):
        found = encoder.encode_files(asked, batch_size=2)
        expected = encoder.encode(files)
    assert [i for i, each in enumerate(found) if isinstance(each, np.ndarray)] == [4, 5, 7]
    assert np.allclose([found[i] for i in (4, 5, 7)], expected, atol=2e-3)
    for path, each in zip(asked, found, strict=True):
        assert isinstance(each, np.ndarray) or str(path) in str(each)
    with pytest.raises(ImageError, match=r"4\.jpg"):
        encoder.encode(asked[4:])
    assert encoder.encode_files([]) == []
    assert encoder.encode([]).shape == (0, encoder.dimension)


def test_nothing_is_said_where_nothing_is_missing(encoder: ImageEncoder) -> None:
    assert embed_pictures([], encoder).vectors.shape == (0, encoder.dimension)
    assert embed_pictures(read_jsonl(DEMO_POSTS)[:1], encoder).shortfall == ""
