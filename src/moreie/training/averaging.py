"""Averages of the weights over training (`torch.optim.swa_utils`), which are then what is scored and kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import TrainerCallback

from moreie.training.recipe import Optimisation

log = logging.getLogger(__name__)
FILE, COUNT = "average.safetensors", "count"


class WeightAverage(TrainerCallback):
    """The average of a model's trained weights (frozen ones are not copied), kept with every checkpoint.

    `ema`: exponential, after each step; `swa`: the plain mean of the weights at the ends of the epochs.
    """

    def __init__(self, model: nn.Module, settings: Optimisation):
        self.kind = settings.average
        self.trained = nn.ParameterList([p for p in model.parameters() if p.requires_grad])
        function = get_ema_multi_avg_fn(settings.ema_decay) if self.kind == "ema" else None  # type: ignore[no-untyped-call]
        self.average = AveragedModel(self.trained, multi_avg_fn=function)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.kind == "ema":
            self.average.update_parameters(self.trained)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.kind == "swa":
            self.average.update_parameters(self.trained)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        tensors = {str(i): p.detach().cpu().clone() for i, p in enumerate(self.average.module.parameters())}
        tensors[COUNT] = self.average.n_averaged.cpu()
        save_file(tensors, Path(args.output_dir) / f"checkpoint-{state.global_step}" / FILE)

    def load(self, checkpoint: Path) -> None:
        """Take up the average as it was at a checkpoint."""
        if not (checkpoint / FILE).exists():
            log.warning("%s: no average of the weights was kept there; it starts anew", checkpoint)
            return
        tensors = load_file(checkpoint / FILE)
        self.average.n_averaged.copy_(tensors[COUNT])
        with torch.no_grad():
            for i, parameter in enumerate(self.average.module.parameters()):
                parameter.copy_(tensors[str(i)])

    def apply(self) -> None:
        """Give the model the averaged weights for good."""
        with torch.no_grad():
            for own, mean in zip(self.trained, self.average.module.parameters(), strict=True):
                own.copy_(mean)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights inside the block and its own after it."""
        own = [p.detach().clone() for p in self.trained]
        if self.average.n_averaged:
            self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(self.trained, own, strict=True):
                    parameter.copy_(value)
