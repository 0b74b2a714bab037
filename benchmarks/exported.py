"""An entity expert as other libraries load it."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from moreie.encoders.merging import merged_weights
from moreie.models.ner import NerExpert


def export(expert: NerExpert, folder: Path) -> None:
    """Encoder with the adapter folded in, tokenizer, and the head's scores."""
    layers = {name: layer.base_layer for name, layer in expert.encoder.adapted_layers().items()}
    bare = {name: layer.weight.data for name, layer in layers.items()}
    for name, weight in merged_weights(expert.encoder, expert.adapter_name).items():
        layers[name].weight.data = weight
    expert.encoder.save(folder)
    for name, weight in bare.items():
        layers[name].weight.data = weight
    settings = folder / "tokenizer_config.json"
    kept = json.loads(settings.read_text(encoding="utf-8"))
    kept.pop("extra_special_tokens", None)  # a list, of which transformers 4 knows nothing; the vocabulary has them
    settings.write_text(json.dumps(kept), encoding="utf-8")
    transitions, start, end = expert.crf.scores()
    emission = expert.emission
    head = {"tags": expert.tagset.tags, "weight": emission.weight.data, "bias": emission.bias.data}
    scores = {"transitions": transitions.data, "start": start.data, "end": end.data}
    torch.save(head | scores, folder / "head.pt")
