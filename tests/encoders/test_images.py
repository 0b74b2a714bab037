"""Pictures opened with care, and real (tiny, random) image encoders of both kinds."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from moreie.encoders.images import ImageEncoder, load_image
from moreie.errors import EncoderError, ImageError
from moreie.shipped import IMAGE_ENCODER


def picture(path: Path, colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (64, 48)) -> Path:
    g = np.random.default_rng(sum(colour))
    noise = g.integers(0, 60, (size[1], size[0], 3))
    Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8)).save(path)
    return path


def bomb(path: Path, side: int = 30_000) -> Path:
    """A PNG of a few hundred bytes that claims 900 million pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)))
    return path


def test_bad_pictures_are_named_with_what_is_wrong(tmp_path: Path) -> None:
    good = picture(tmp_path / "good.jpg")
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:600])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("this is no picture")
    bomb(tmp_path / "bomb.png")
    picture(tmp_path / "line.png", size=(3, 603))
    for name, message in {
        "cut.jpg": "cut off or damaged",
        "empty.jpg": r"the file is empty \(0 bytes\)",
        "text.jpg": "not a picture",
        "bomb.png": "pixels",
        "line.png": "one side more than 200 times the other",
        "absent.jpg": "no such picture",
        ".": "picture|directory|damaged",
    }.items():
        with pytest.raises(ImageError, match=message):
            load_image(tmp_path / name)
    assert load_image(good).mode == "RGB"


def test_transparent_palette_and_rotated_pictures_load_upright_as_rgb(tmp_path: Path) -> None:
    Image.new("RGBA", (5, 5), (1, 2, 3, 0)).save(tmp_path / "a.png")
    Image.new("P", (5, 5)).save(tmp_path / "b.gif")
    turned = Image.new("RGB", (6, 3))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "c.jpg", exif=exif)
    assert [load_image(tmp_path / n).mode for n in ("a.png", "b.gif")] == ["RGB", "RGB"]
    assert load_image(tmp_path / "c.jpg").size == (3, 6)


def dino(folder: Path) -> Path:
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    Dinov2Model(
        Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
    ).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder


def clip(folder: Path) -> Path:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=CLIPTextConfig(vocab_size=50, **shape).to_dict(),
        vision_config=CLIPVisionConfig(image_size=28, patch_size=14, **shape).to_dict(),
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("make", "dimension"), [(dino, 32), (clip, 16)])
def test_vectors_are_unit_length_and_batches_change_nothing(tmp_path: Path, make, dimension: int) -> None:
    encoder = ImageEncoder.from_pretrained(make(tmp_path / "model"))
    files = [picture(tmp_path / f"{i}.png", (40 * i, 90, 10)) for i in range(5)]
    vectors = encoder.encode(files, batch_size=2)
    assert vectors.shape == (5, dimension) == (5, encoder.dimension)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors, encoder.encode([load_image(f) for f in files]), atol=2e-2)
    assert encoder.fingerprint == ImageEncoder.from_pretrained(tmp_path / "model").fingerprint
    encoder.save_packed(tmp_path / "packed")
    packed = ImageEncoder.from_pretrained(tmp_path / "packed")
    assert (packed.encode(files) * vectors).sum(1).min() > 0.98
    assert packed.fingerprint != encoder.fingerprint


def test_an_absent_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="no image encoder at"):
        ImageEncoder.from_pretrained(tmp_path)


def test_texts_of_any_length_keep_their_order(clip: ImageEncoder) -> None:
    texts = [f"{'word ' * length}number {length}" for length in (9, 0, 30, 3, 200, 1, 12)]
    together = clip.encode_texts(texts, batch_size=2)
    alone = np.concatenate([clip.encode_texts([text]) for text in texts])
    assert together == pytest.approx(alone, abs=2e-2)
    assert clip.encode_texts([]).shape == (0, clip.dimension)
    with pytest.raises(EncoderError, match=r"without a text tower.*openai/clip-vit-base-patch32"):
        ImageEncoder.from_pretrained(IMAGE_ENCODER).encode_texts(texts)
