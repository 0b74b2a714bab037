"""An epoch of fine-tuning an expert's whole encoder, ours and that of `transformers.Trainer` padded to 512."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import BertForTokenClassification, Trainer, TrainingArguments

from moreie.models.ner import NerExpert
from moreie.training.features import Collator, Example, Examples
from moreie.training.recipe import Optimisation
from moreie.training.trainer import ExpertTrainer, training_arguments

BATCH, LENGTH = 16, 512


class Padded(torch.utils.data.Dataset[dict[str, Any]]):
    """The same inputs for a token classifier: labels at the words' first sub-tokens, all 512 long."""

    def __init__(self, examples: Sequence[Example]):
        self.rows = []
        for example in examples:
            ids = torch.zeros(LENGTH, dtype=torch.long)
            ids[: len(example.input.input_ids)] = torch.tensor(example.input.input_ids)
            labels = torch.full((LENGTH,), -100)
            labels[list(example.input.anchors)] = torch.tensor(example.tags)
            mask = (torch.arange(LENGTH) < len(example.input.input_ids)).long()
            self.rows.append({"input_ids": ids, "attention_mask": mask, "labels": labels})

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def ours(
    expert: NerExpert, examples: Sequence[Example], folder: Path, precision: Literal["bf16", "fp32"] = "fp32"
) -> float:
    """Seconds of an epoch."""
    settings = Optimisation(epochs=1, batch_size=BATCH, precision=precision)
    arguments = training_arguments(settings, len(examples), folder, 0, disable_tqdm=True)
    arguments.save_strategy = "no"
    trainer = ExpertTrainer(
        model=expert,
        args=arguments,
        train_dataset=Examples(examples),
        data_collator=Collator(expert),
        settings=settings,
        teacher_weight=0.0,
        two_view=None,
        average=None,
    )
    return float(trainer.train().metrics["train_runtime"])


def theirs(model: BertForTokenClassification, rows: Padded, folder: Path) -> float:
    """Seconds of an epoch."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=BATCH,
        save_strategy="no",
        report_to="none",
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    return float(Trainer(model=model, args=arguments, train_dataset=rows).train().metrics["train_runtime"])
