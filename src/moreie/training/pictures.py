"""The posts' pictures as the gate of a recipe reads them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moreie.encoders.images import ImageEncoder
from moreie.encoders.pictures import NO_PICTURE, EmbeddedImages, embed_pictures
from moreie.errors import RecipeError
from moreie.schema import Post
from moreie.training.recipe import Recipe

log = logging.getLogger(__name__)


class GatePictures:
    """Pictures embedded by the image encoder of a recipe's gate: each file once, over all splits and seeds."""

    def __init__(self, recipe: Recipe) -> None:
        self._name = recipe.gate.image_encoder
        self._known: dict[Path, tuple[NDArray[np.float32], tuple[str, ...]]] = {}
        self._others: dict[str, GatePictures] = {}

    def of(self, recipe: Recipe) -> GatePictures:
        """Those of the same run as another of its gates reads them."""
        name = recipe.gate.image_encoder
        if name is None or name == self._name:
            return self
        return self._others.setdefault(name, GatePictures(recipe))

    @cached_property
    def encoder(self) -> ImageEncoder:
        """Loaded when it is first asked for.

        Raises:
            RecipeError: the recipe's gate reads no pictures.
            EncoderError: it cannot be loaded.
        """
        if self._name is None:
            raise RecipeError("the recipe's gate names no image_encoder, so it reads no pictures")
        return ImageEncoder.from_pretrained(self._name)

    def rows(self, posts: Sequence[Post]) -> Tensor:
        """Embeddings [N, D], rows of NaN where a post has no picture that can be read; the log counts such posts.

        Raises:
            RecipeError: no post has a picture that can be read.
        """
        new = {p.image: p for p in posts if p.image is not None and p.image not in self._known}
        if new:
            found = embed_pictures(list(new.values()), self.encoder)
            self._known.update(zip(new, zip(found.vectors, found.warnings, strict=True), strict=True))
        nothing = np.full(self.encoder.dimension, np.nan, dtype=np.float32), (NO_PICTURE,)
        own = [nothing if p.image is None else self._known[p.image] for p in posts]
        embedded = EmbeddedImages(np.array([v for v, _ in own]), tuple(w for _, w in own))
        if not len(embedded.rows):
            found_none = embedded.shortfall or "there are no posts"
            raise RecipeError(
                f"gate input 'image': {found_none}; the folder of a split's pictures is named in data.<split>.images"
            )
        if embedded.shortfall:
            log.warning("gate input 'image': %s", embedded.shortfall)
        return torch.from_numpy(embedded.vectors)
