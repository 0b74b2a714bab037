"""DINOv2 (Oquab et al., TMLR 2024) and its preprocessing in plain torch and Pillow: module names and numbers are those
of `transformers`, which takes longer to import than an extraction to answer.

It reads the folders that `ImageEncoder.save_packed` writes; every other encoder is loaded by `transformers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from moreie.encoders import packing
from moreie.encoders.attention import attended
from moreie.encoders.bert import Output
from moreie.encoders.norms import sum_and_norm
from moreie.encoders.products import Multiply, fast_product
from moreie.encoders.settings import CONFIG, read_settings, write_settings
from moreie.encoders.undrawn import Conv2d, Linear

if TYPE_CHECKING:
    from numpy.typing import NDArray

PREPROCESSING = "preprocessor_config.json"
SIMPLE: Mapping[str, Any] = {
    "model_type": "dinov2",
    "hidden_act": "gelu",
    "use_swiglu_ffn": False,
    "qkv_bias": True,
    "dtype": "float32",
}
"""What a configuration says of an encoder that is known here."""
CROPPING: Mapping[str, Any] = {
    "image_processor_type": "BitImageProcessor",
    "resample": int(Image.Resampling.BICUBIC),
    **{f"do_{step}": True for step in ("convert_rgb", "resize", "center_crop", "rescale", "normalize")},
}
"""What is said of the preprocessing that is known here."""
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "mlp_ratio", "patch_size", "image_size")


@dataclass(frozen=True)
class Dinov2Config:
    """The sizes of a DINOv2, and all else that its `config.json` says."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    mlp_ratio: int
    patch_size: int
    image_size: int
    layer_norm_eps: float
    written: Mapping[str, Any] = field(repr=False)

    def save_pretrained(self, folder: Path) -> None:
        """Write `config.json`."""
        write_settings(folder / CONFIG, self.written)


def read_config(folder: Path) -> Dinov2Config | None:
    """The configuration in a folder; None where there is none, or one of an encoder that is not known here."""
    written = read_settings(folder / CONFIG, SIMPLE, ("model_type", "layer_norm_eps", *SIZES))
    if written is None or any(not isinstance(written[name], int) for name in SIZES):
        return None
    sizes = {name: written[name] for name in SIZES}
    return Dinov2Config(layer_norm_eps=float(written["layer_norm_eps"]), written=written, **sizes)


class CentredCrop:
    """Pictures as the encoder reads them: their shorter side brought to a size, the middle cut out, colours normed."""

    def __init__(self, settings: Mapping[str, Any]):
        self._settings = settings
        self._side = int(settings["size"]["shortest_edge"])
        self._crop = int(settings["crop_size"]["height"]), int(settings["crop_size"]["width"])
        # Of each channel the number for each of its 256 values, computed as `transformers` does.
        values = (np.arange(256, dtype=np.float64) * settings["rescale_factor"]).astype(np.float32)
        mean, std = (np.array(settings[name], np.float32)[:, None] for name in ("image_mean", "image_std"))
        self._numbers = (values - mean) / std

    @classmethod
    def from_folder(cls, folder: Path) -> CentredCrop | None:
        """The preprocessing that is written in a folder; None where there is none, or one not known here."""
        needed = (*CROPPING, "rescale_factor", "image_mean", "image_std", "size", "crop_size")
        settings = read_settings(folder / PREPROCESSING, CROPPING, needed)
        if settings is None:
            return None
        size, crop = settings["size"], settings["crop_size"]
        if not isinstance(size, dict) or not isinstance(crop, dict):  # a number, as older versions wrote
            return None
        alike = size.keys() == {"shortest_edge"} and crop.keys() == {"height", "width"}
        return cls(settings) if alike and max(crop.values()) <= size["shortest_edge"] else None

    def __call__(self, images: Sequence[Image.Image], return_tensors: str = "pt") -> dict[str, Tensor]:
        """`pixel_values` [N, 3, h, w] of pictures in RGB."""
        return {"pixel_values": torch.from_numpy(np.stack([self._pixels(image) for image in images]))}

    def _pixels(self, image: Image.Image) -> NDArray[np.float32]:
        width, height = image.size
        short, long = sorted((width, height))
        longer = int(self._side * long / short)
        size = (self._side, longer) if width <= height else (longer, self._side)
        resized = image.resize(size, Image.Resampling.BICUBIC)
        top, left = (resized.height - self._crop[0]) // 2, (resized.width - self._crop[1]) // 2
        pixels = np.asarray(resized.crop((left, top, left + self._crop[1], top + self._crop[0])))
        return np.stack([self._numbers[channel][pixels[..., channel]] for channel in range(3)])

    def to_dict(self) -> dict[str, Any]:
        """As it is written."""
        return dict(self._settings)

    def save_pretrained(self, folder: Path) -> None:
        """Write `preprocessor_config.json`."""
        write_settings(folder / PREPROCESSING, self._settings)


class Dinov2Model(nn.Module):
    """The encoder, for reading: nothing of it is trained."""

    def __init__(self, config: Dinov2Config):
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        self.encoder = _Layers(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    @classmethod
    def from_folder(cls, folder: Path, config: Dinov2Config) -> Dinov2Model | None:
        """Load what `ImageEncoder.save_packed` wrote; None where weights have other names.

        Raises:
            CheckpointError: no weights there, or damaged ones.
            RuntimeError: weights that do not fit.
        """
        model, state = cls(config), packing.load_packed(folder)
        if model.state_dict().keys() != state.keys():
            return None
        model.load_state_dict(state, assign=True)
        return model

    def forward(self, pixel_values: Tensor) -> Output:
        """States [N, 1 + patches, H] of pictures [N, 3, h, w], the class token's first."""
        return Output(self.layernorm(self.encoder(self.embeddings(pixel_values))))

    def class_states(self, pixel_values: Tensor) -> Tensor:
        """The class token's states [N, H] alone, in the last layer computed for no other."""
        states = self.embeddings(pixel_values)
        *layers, last = self.encoder.layers()
        for layer in layers:
            states = layer(states)
        found: Tensor = self.layernorm(last.class_token(states))[:, 0]
        return found


class _Embeddings(nn.Module):
    def __init__(self, config: Dinov2Config):
        super().__init__()
        width, self.patch = config.hidden_size, config.patch_size
        self.side = config.image_size // config.patch_size
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.mask_token = nn.Parameter(torch.empty(1, width))
        self.position_embeddings = nn.Parameter(torch.empty(1, self.side**2 + 1, width))
        self.patch_embeddings = _Patches(width, self.patch)

    def forward(self, pixels: Tensor) -> Tensor:
        states = torch.cat((self.cls_token.expand(len(pixels), -1, -1), self.patch_embeddings(pixels)), dim=1)
        return states + self._positions(pixels.shape[2] // self.patch, pixels.shape[3] // self.patch)

    def _positions(self, height: int, width: int) -> Tensor:
        """[1, 1 + height · width, H]: they were learnt for larger pictures."""
        if height == width == self.side:
            return self.position_embeddings
        grid = self.position_embeddings[:, 1:].reshape(1, self.side, self.side, -1).permute(0, 3, 1, 2)
        fitted = functional.interpolate(grid, size=(height, width), mode="bicubic", align_corners=False)
        return torch.cat((self.position_embeddings[:, :1], fitted.permute(0, 2, 3, 1).flatten(1, 2)), dim=1)


class _Patches(nn.Module):
    def __init__(self, width: int, side: int):
        super().__init__()
        self.projection = Conv2d(3, width, kernel_size=side, stride=side)

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.projection(pixels)
        return found.flatten(2).transpose(1, 2)


class _Layers(nn.Module):
    def __init__(self, config: Dinov2Config):
        super().__init__()
        self.layer = nn.ModuleList([_Layer(config) for _ in range(config.num_hidden_layers)])

    def layers(self) -> list[_Layer]:
        """In their order."""
        return list(self.layer)  # type: ignore[arg-type]

    def forward(self, states: Tensor) -> Tensor:
        for layer in self.layer:
            states = layer(states)
        return states


class _Layer(nn.Module):
    def __init__(self, config: Dinov2Config):
        super().__init__()
        width = config.hidden_size
        self.norm1 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.attention = _Attention(width, config.num_attention_heads)
        self.layer_scale1 = _Scale(width)
        self.norm2 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = _Mlp(width, width * config.mlp_ratio)
        self.layer_scale2 = _Scale(width)

    def forward(self, states: Tensor) -> Tensor:
        return self._of(states, self.norm1(states))

    def class_token(self, states: Tensor) -> Tensor:
        """Its states alone [N, 1, H]."""
        return self._of(states[:, :1], self.norm1(states))

    def _of(self, states: Tensor, read: Tensor) -> Tensor:
        """The first tokens' states, of theirs and of the norm of all."""
        states = self.layer_scale1(self.attention(read[:, : states.shape[1]], read)) + states
        found: Tensor = self.layer_scale2(self.mlp(self.norm2(states))) + states
        return found


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = Linear(width, width), Linear(width, width)
        self.v_proj, self.o_proj = Linear(width, width), Linear(width, width)

    def forward(self, asking: Tensor, states: Tensor) -> Tensor:
        mixed = attended(self.q_proj(asking), self.k_proj(states), self.v_proj(states), self.heads)
        found: Tensor = self.o_proj(mixed)
        return found


class _Scale(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.lambda1 = nn.Parameter(torch.empty(width))

    def forward(self, states: Tensor) -> Tensor:
        return states * self.lambda1


class _Mlp(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.fc1, self.fc2 = Linear(width, inner), Linear(inner, width)

    def forward(self, states: Tensor) -> Tensor:
        found: Tensor = self.fc2(functional.gelu(self.fc1(states)))
        return found


class ReadyDinov2:
    """A DINOv2 made ready to be read in a kind of number: of each layer the products of the same states as one, its
    scales within the weights that they follow, numbers cast once."""

    def __init__(self, model: Dinov2Model, kind: torch.dtype):
        self._embeddings, self._norm, self._kind = model.embeddings, model.layernorm, kind
        *layers, last = model.encoder.layers()
        self._layers, self._last = (
            [_ReadyLayer.of(layer, kind) for layer in layers],
            _ReadyLayer.of(last, kind, last=True),
        )

    def class_states(self, pixels: Tensor) -> Tensor:
        """As `Dinov2Model.class_states`, in float32."""
        states = self._embeddings(pixels)
        norms = [layer.first_norm for layer in (*self._layers, self._last)]
        read = norms[0](states).to(self._kind)
        for layer, norm in zip(self._layers, norms[1:], strict=True):
            states, product = layer(states, read)
            states, read = sum_and_norm(norm, product, states)
        states, product = self._last(states[:, :1].contiguous(), read)
        found: Tensor = self._norm(states + product)[:, 0]
        return found


@dataclass(frozen=True, slots=True)
class _ReadyLayer:
    heads: int
    first_norm: nn.LayerNorm
    mixed: tuple[Multiply, ...]
    """Query, key and value as one product, or, in the last layer, the query and the other two."""
    attended: Multiply
    second_norm: nn.LayerNorm
    inner: Multiply
    outer: Multiply

    @classmethod
    def of(cls, layer: _Layer, kind: torch.dtype, *, last: bool = False) -> _ReadyLayer:
        def product(*parts: nn.Linear, scale: _Scale | None = None, gelu: bool = False) -> Multiply:
            weights: list[Tensor] = [part.weight for part in parts]
            biases: list[Tensor] = [part.bias for part in parts]
            if scale is not None:
                weights = [scale.lambda1[:, None] * weight for weight in weights]
                biases = [scale.lambda1 * bias for bias in biases]
            return fast_product([weight.to(kind) for weight in weights], biases, gelu=gelu)

        attention = layer.attention
        query, *others = attention.q_proj, attention.k_proj, attention.v_proj
        return cls(
            attention.heads,
            layer.norm1,
            (product(query), product(*others)) if last else (product(query, *others),),
            product(attention.o_proj, scale=layer.layer_scale1),
            layer.norm2,
            product(layer.mlp.fc1, gelu=True),
            product(layer.mlp.fc2, scale=layer.layer_scale2),
        )

    def __call__(self, states: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        """Of a layer's states, in the last one the first tokens', and of the norm of all: its states behind the
        attention, and what is to be added to them."""
        asked, *told = self.mixed
        if told:
            query, (key, value) = asked(read[:, :1]), told[0](read).chunk(2, dim=-1)
        else:
            query, key, value = asked(read).chunk(3, dim=-1)
        mixed = self.attended(attended(query, key, value, self.heads))
        states, read = sum_and_norm(self.second_norm, mixed, states)
        return states, self.outer(self.inner(read))
