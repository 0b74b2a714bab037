"""Image encoders: photographs in, unit vectors out; and pictures opened with care."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import warnings
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from moreie.encoders import dinov2, packing
from moreie.encoders.batches import at_once, side_by_side
from moreie.encoders.fingerprints import record_fingerprint, recorded_fingerprint
from moreie.encoders.precision import autocast, default_device, product_kind
from moreie.errors import EncoderError, ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")

log = logging.getLogger(__name__)
# 64 million pixels: above any photograph of a post, far below what a small compressed file can unfold to.
PIXEL_LIMIT = 64_000_000
# How many times a picture may be as long as it is wide: encoders bring the shorter side to some size, and a line of one
# pixel would become gigabytes.
LONGEST = 200
# Pictures of a batch on a processor, which reads four as fast as thirty-two.
FEW = 8
# Formats of photographs. Pillow knows others, some of which it has read by programs of the system (EPS by Ghostscript).
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")


@cache
def _readable() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # AVIF came with Pillow 11.3


def load_image(path: Path) -> Image.Image:
    """Open a picture fully, upright, as RGB.

    Raises:
        ImageError: missing, empty, no picture, cut off, larger than `PIXEL_LIMIT`, or a line (`LONGEST`).
    """
    try:
        content = path.read_bytes()
    except IsADirectoryError:
        raise ImageError(f"{path}: a folder, not a picture") from None
    except FileNotFoundError:
        raise ImageError(f"{path}: no such picture") from None
    except OSError as problem:
        raise ImageError(f"{path}: cannot be read ({problem})") from problem
    return decode_image(content, str(path))


def picture_size(content: bytes) -> tuple[int, int]:
    """Width and height that the bytes of a picture file declare, without decoding it.

    Raises:
        ImageError: not a picture, or damaged, or of more pixels than Pillow opens.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_readable()) as picture:
                return picture.width, picture.height
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError, EOFError) as problem:
        raise ImageError(f"not a picture that can be opened ({problem})") from problem


def decode_image(content: bytes, name: str) -> Image.Image:
    """A picture from the bytes of its file, upright, as RGB; `name` is for messages.

    Raises:
        ImageError: empty, no picture, cut off, larger than `PIXEL_LIMIT`, or a line (`LONGEST`).
    """
    if not content:
        raise ImageError(f"{name}: the file is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_readable()) as picture:
                if picture.width * picture.height > PIXEL_LIMIT:
                    raise ImageError(
                        f"{name}: {picture.width} × {picture.height} pixels, more than the {PIXEL_LIMIT:,} allowed"
                    )
                if max(picture.size) > LONGEST * min(picture.size):
                    size = f"{picture.width} × {picture.height} pixels"
                    raise ImageError(f"{name}: {size}, one side more than {LONGEST} times the other")
                picture.load()
                return ImageOps.exif_transpose(picture).convert("RGB")
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not a picture") from None
    except Image.DecompressionBombError as problem:
        raise ImageError(f"{name}: too many pixels ({problem})") from problem
    except (OSError, SyntaxError, ValueError, EOFError) as problem:
        raise ImageError(f"{name}: cut off or damaged ({problem})") from problem


class ImageEncoder:
    """A vision transformer whose features are compared by cosine similarity.

    DINOv2 and other plain image encoders give their class token's state; CLIP-like ones their image tower's
    projected features.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        name: str,
        device: torch.device | str | None = None,
        tokenizer: Any = None,
    ):
        self.tokenizer = tokenizer
        self.device = torch.device(device) if device else default_device()
        self.model = model.eval().to(self.device)
        self.processor, self.name = processor, name

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, device: torch.device | str | None = None) -> ImageEncoder:
        """Load from a hub id, a local folder in Hugging Face form, or a packed folder.

        Raises:
            EncoderError: nothing loadable there.
        """
        name = str(name_or_path)
        try:
            model, processor = _saved(Path(name)) or _published(name)
        except (OSError, ValueError, RuntimeError, ImportError) as problem:
            raise EncoderError(
                f"no image encoder at {name!r}: {str(problem).splitlines()[0]} Give a folder in Hugging Face form, "
                "or a hub id on a machine that reaches the hub."
            ) from problem
        tokenizer = None
        if hasattr(model, "get_text_features"):
            from transformers import AutoTokenizer

            try:
                tokenizer = AutoTokenizer.from_pretrained(name)  # type: ignore[no-untyped-call]
            except (OSError, ValueError) as problem:
                log.warning(
                    "%s: its text tower has no tokenizer (%s); text is not compared with pictures", name, problem
                )
        encoder = cls(model, processor, name, device, tokenizer)
        if known := recorded_fingerprint(Path(name)):
            encoder.fingerprint = known
        return encoder

    @cached_property
    def fingerprint(self) -> str:
        """Hash of weights and preprocessing: vectors of two encoders may be compared only when it is the same."""
        digest = hashlib.sha256()
        settings = {k: v for k, v in self.processor.to_dict().items() if not k.startswith(("_", "image_processor"))}
        digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
        for key, tensor in sorted(self.model.state_dict().items()):
            digest.update(key.encode())
            digest.update(tensor.detach().cpu().half().contiguous().numpy().data)
        return digest.hexdigest()[:16]

    @cached_property
    def dimension(self) -> int:
        """D."""
        config = self.model.config
        return int(getattr(config, "projection_dim", None) or config.hidden_size)

    def encode(self, images: Sequence[Image.Image | Path], *, batch_size: int = 32) -> NDArray[np.float32]:
        """Unit vectors [N, D] of pictures or picture files; files are opened batch by batch.

        Raises:
            ImageError: a file is no readable picture.
        """

        def opened(image: Image.Image | Path) -> Image.Image:
            return load_image(image) if isinstance(image, Path) else image

        found = self._encoded(images, opened, batch_size)
        return np.stack(found) if found else np.zeros((0, self.dimension), dtype=np.float32)  # type: ignore[arg-type]

    def encode_files(self, files: Sequence[Path], *, batch_size: int = 32) -> list[NDArray[np.float32] | ImageError]:
        """The unit vector [D] of each picture file, or what is wrong with it; they are opened batch by batch, on a
        processor by all of its threads."""

        def opened(file: Path) -> Image.Image | ImageError:
            try:
                return load_image(file)
            except ImageError as problem:
                return problem

        return self._encoded(files, opened, batch_size)

    def _encoded(
        self, images: Sequence[T], opened: Callable[[T], Image.Image | ImageError], batch_size: int
    ) -> list[NDArray[np.float32] | ImageError]:
        if not images:
            return []
        # Made before threads ask for it, each for itself.
        ready = self._in_bfloat16 if product_kind(self.device) is torch.bfloat16 else None

        @torch.inference_mode()
        def work(batch: Sequence[T]) -> list[NDArray[np.float32] | ImageError]:
            pictures = [opened(image) for image in batch]
            readable = [picture for picture in pictures if isinstance(picture, Image.Image)]
            if not readable:
                return [picture for picture in pictures if isinstance(picture, ImageError)]
            pixels = self.processor(images=readable, return_tensors="pt")["pixel_values"].to(self.device)
            features = (ready.class_states(pixels) if ready else self._features(pixels)).float()
            vectors = iter(torch.nn.functional.normalize(features, dim=1).cpu().numpy())
            return [picture if isinstance(picture, ImageError) else next(vectors) for picture in pictures]

        batches = _batches(images, batch_size, self.device)
        return [vector for part in side_by_side(work, batches, self.device) for vector in part]

    @property
    def reads_text(self) -> bool:
        """Whether texts can be embedded among the pictures."""
        return self.tokenizer is not None and hasattr(self.model, "get_text_features")

    def need_text_tower(self) -> None:
        """Raises `EncoderError` where texts cannot be embedded among the pictures."""
        if not self.reads_text:
            raise EncoderError(
                f"{self.name}: an image encoder without a text tower; text and pictures can be compared with CLIP or "
                "its kind (openai/clip-vit-base-patch32)"
            )

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], *, batch_size: int = 64) -> NDArray[np.float32]:
        """Unit vectors [N, D] of texts, cut to what the text tower reads.

        Raises:
            EncoderError: the encoder has no text tower.
        """
        self.need_text_tower()
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        limit = self.model.config.text_config.max_position_embeddings
        # Texts of like length together: less padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            batch = [texts[i] for i in places]
            inputs = self.tokenizer(batch, truncation=True, max_length=limit, padding=True, return_tensors="pt")
            with autocast(self.device):
                found = self.model.get_text_features(**inputs.to(self.device))
            features = found if isinstance(found, Tensor) else found.pooler_output
            normal = torch.nn.functional.normalize(features.float(), dim=1)
            vectors[places] = normal.cpu().numpy()
        return vectors

    def _features(self, pixels: Tensor) -> Tensor:
        with autocast(self.device):
            if isinstance(self.model, dinov2.Dinov2Model):
                return self.model.class_states(pixels)
            if hasattr(self.model, "get_image_features"):
                found = self.model.get_image_features(pixel_values=pixels)
                return found if isinstance(found, Tensor) else found.pooler_output  # type: ignore[no-any-return]
            return self.model(pixel_values=pixels).last_hidden_state[:, 0]  # type: ignore[no-any-return]

    @cached_property
    def _in_bfloat16(self) -> dinov2.ReadyDinov2 | None:
        """Its weights in bfloat16, cast once; None where only autocast can do that, in each call."""
        known = isinstance(self.model, dinov2.Dinov2Model) and self.device.type == "cpu"
        return dinov2.ReadyDinov2(self.model, torch.bfloat16) if known else None

    def save_packed(self, folder: Path) -> None:
        """Write the encoder with its matrices in 8 bits (`encoders.packing`)."""
        folder.mkdir(parents=True, exist_ok=True)
        packing.save_packed(self.model.state_dict(), folder, lambda name: 8)
        self.model.config.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        record_fingerprint(folder, ImageEncoder.from_pretrained(folder, device="cpu").fingerprint)


def _batches(images: Sequence[T], most: int, device: torch.device) -> list[Sequence[T]]:
    """As many for each of a device's threads, of at most so many pictures; on a processor of few, or one batch would be
    in work long after all others have ended."""
    threads = at_once(device)
    most = min(most, FEW) if device.type == "cpu" else most
    rounds = math.ceil(len(images) / (threads * most))
    size = max(math.ceil(len(images) / (threads * max(rounds, 1))), 1)
    return [images[start : start + size] for start in range(0, len(images), size)]


def _saved(folder: Path) -> tuple[Any, Any] | None:
    """A DINOv2 and its preprocessing, as `ImageEncoder.save_packed` writes them; None for all else."""
    config, processor = dinov2.read_config(folder), dinov2.CentredCrop.from_folder(folder)
    if config is None or processor is None or not (folder / packing.FILE).is_file():
        return None
    model = dinov2.Dinov2Model.from_folder(folder, config)
    return (model, processor) if model else None


def _published(name: str) -> tuple[Any, Any]:
    """An encoder and its preprocessing by `transformers`.

    Raises:
        OSError, ValueError, RuntimeError, ImportError: nothing loadable there.
    """
    from transformers import AutoImageProcessor, AutoModel

    processor = AutoImageProcessor.from_pretrained(name)  # type: ignore[no-untyped-call]
    packed = (Path(name) / packing.FILE).is_file()
    return packing.load_model(Path(name)) if packed else AutoModel.from_pretrained(name, dtype=torch.float32), processor
