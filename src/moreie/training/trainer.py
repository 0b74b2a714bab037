"""One expert trained on the `transformers` trainer: mixed precision, resume, early stopping, length-grouped batches."""

from __future__ import annotations

import logging
import math
import re
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, EvalPrediction, Trainer, TrainingArguments, set_seed
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from moreie.encoders.merging import added, adds_in_place
from moreie.encoders.precision import bf16_is_fast, default_device
from moreie.models.expert import Expert
from moreie.models.ner import NerExpert
from moreie.models.relation import RelationExpert
from moreie.schema import NO_RELATION
from moreie.training import trained_with
from moreie.training.adversarial import moved_embeddings, recorded_embeddings
from moreie.training.averaging import WeightAverage
from moreie.training.features import PLAIN, Collator, Example, Examples
from moreie.training.losses import adversarial_perturbation, r_drop_loss, two_view_loss, without_some_words
from moreie.training.recipe import Optimisation, TwoView

log = logging.getLogger(__name__)
CHECKPOINTS = "checkpoints"
# How BERT-like, DistilBERT-like, ModernBERT-like and GPT-like models name their layers.
_LAYER = re.compile(r"^encoder\..*?\.(?:layers?|h)\.(\d+)\.")


def train_expert(
    expert: NerExpert | RelationExpert,
    train: Sequence[Example],
    validation: Sequence[Example],
    settings: Optimisation,
    *,
    output: Path,
    seed: int,
    teacher_weight: float = 0.0,
    two_view: TwoView | None = None,
) -> float:
    """Train in place, keep the weights of the best epoch by validation F1, save to `output`, return that F1 (0–100).

    A run that was cut off resumes from its last finished epoch when called again with the same `output`.
    """
    set_seed(seed)
    checkpoints = output / CHECKPOINTS
    arguments = training_arguments(
        settings,
        len(train),
        checkpoints,
        seed,
        per_device_eval_batch_size=4 * settings.batch_size,
        eval_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="f1",
        greater_is_better=True,
        label_names=["labels"],
    )
    average = WeightAverage(expert, settings) if settings.average != "none" else None
    trainer = ExpertTrainer(
        model=expert,
        args=arguments,
        train_dataset=Examples(train),
        eval_dataset=Examples(validation),
        data_collator=Collator(expert),
        compute_metrics=_ner_f1(expert) if isinstance(expert, NerExpert) else _relation_f1(expert),
        callbacks=[EarlyStoppingCallback(settings.patience), *([average] if average else [])],
        settings=settings,
        teacher_weight=teacher_weight,
        two_view=two_view,
        average=average,
    )
    last = last_checkpoint(checkpoints)
    if last and average:
        average.load(Path(last))
    with _adapter_in_place(expert, arguments):
        trainer.train(resume_from_checkpoint=last)
    best = trainer.state.best_metric or 0.0
    if not best:
        log.warning(
            "%s: after training it finds nothing in the validation posts (F1 0). A lower learning_rate, a longer "
            "warmup, another seed or `precision: fp32` may help; experts that start from it will hardly be better",
            output,
        )
    if average and trainer.state.best_model_checkpoint:
        average.load(Path(trainer.state.best_model_checkpoint))
        average.apply()
    expert.save(output)
    trained_with.note(output, arguments)
    shutil.rmtree(checkpoints)
    return float(best)


def _adapter_in_place(expert: Expert, arguments: TrainingArguments) -> AbstractContextManager[None]:
    """The expert's adapter trained at less cost, where that can be done."""
    adapter = expert.spec.adapter
    plain = not (arguments.bf16 or arguments.fp16)
    if adapter is not None and not adapter.dropout and plain and adds_in_place(expert.encoder):
        return added(expert.encoder, expert.adapter_name)
    return nullcontext()


def training_arguments(
    settings: Optimisation, examples: int, checkpoints: Path, seed: int, **more: Any
) -> TrainingArguments:
    """What every training here has in common: schedule, precision, batches by length, a checkpoint each epoch."""
    precision = settings.precision
    if precision == "auto":
        precision = "bf16" if bf16_is_fast(default_device()) else "fp32"
    steps = math.ceil(examples / settings.batch_size) * settings.epochs
    return TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=int(settings.warmup * steps),
        lr_scheduler_type="linear",
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        train_sampling_strategy="group_by_length",
        save_strategy="epoch",
        save_total_limit=1,
        remove_unused_columns=False,
        logging_steps=50,
        report_to="none",
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        data_seed=seed,
        dataloader_pin_memory=torch.cuda.is_available(),
        **more,
    )


def last_checkpoint(checkpoints: Path) -> str | None:
    """The checkpoint to resume from, None where there is none; one that a kill cut off is removed."""
    for folder in checkpoints.glob("checkpoint-*"):
        if not (folder / TRAINER_STATE_NAME).exists():  # written last
            shutil.rmtree(folder)
    last: str | None = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None  # type: ignore[no-untyped-call]
    if last:
        log.warning("resuming from %s", last)
    return last


class ExpertTrainer(Trainer):
    """Trainer with one learning rate each for encoder, head and CRF, and tag paths or classes as predictions."""

    def __init__(
        self,
        *args: Any,
        settings: Optimisation,
        teacher_weight: float,
        two_view: TwoView | None,
        average: WeightAverage | None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.two_view, self.average = two_view, average
        self.settings = settings
        self.teacher_weight = teacher_weight

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(parameter_groups(self.model, self.settings), fused=True)  # type: ignore[arg-type]
        return self.optimizer

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        settings, expert = self.settings, cast(Expert, self.model)
        extra = {"teacher_weight": self.teacher_weight} if "teacher" in inputs else {}
        if settings.label_smoothing:
            extra["label_smoothing"] = settings.label_smoothing
        plain = {key.removeprefix(PLAIN): value for key, value in inputs.items() if key.startswith(PLAIN)}
        own = {key: value for key, value in inputs.items() if not key.startswith(PLAIN)}
        if settings.adversarial:
            # Masked once for both passes: the perturbation is one of these very words.
            outputs, loss = self._adversarial(model, self._noisy(own), extra)
            return (loss, outputs) if kwargs.get("return_outputs") else loss
        outputs = model(**self._noisy(own), **extra)
        loss = outputs["loss"]
        if self.two_view and plain:
            extra.pop("teacher_weight", None)
            without = model(**self._noisy(plain), labels=own["labels"], **extra)
            loss = two_view_loss(expert, outputs, without, own["lengths"], self.two_view)
        elif settings.r_drop:
            again = model(**self._noisy(own), **extra)
            loss = r_drop_loss(expert, outputs, again, own["lengths"], settings.r_drop)
        return (loss, outputs) if kwargs.get("return_outputs") else loss

    def _adversarial(
        self, model: nn.Module, inputs: dict[str, Tensor], extra: dict[str, float]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Outputs of the inputs as they are, and L(x) + L(x + r)."""
        encoder = cast(Expert, self.model).encoder
        with recorded_embeddings(encoder) as recorded:
            outputs = model(**inputs, **extra)
        (embeddings,) = recorded
        perturbation = adversarial_perturbation(outputs["loss"], embeddings, self.settings.adversarial)
        with moved_embeddings(encoder, perturbation):
            moved = model(**inputs, **extra)
        return outputs, outputs["loss"] + moved["loss"]

    def _noisy(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        if not self.settings.word_dropout:
            return inputs
        encoder = cast(Expert, self.model).encoder
        return inputs | {"input_ids": without_some_words(encoder, inputs["input_ids"], self.settings.word_dropout)}

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        with self.average.applied() if self.average else nullcontext():
            return super().evaluate(*args, **kwargs)

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Tensor], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            outputs = model(**inputs)
        if prediction_loss_only:
            return outputs["loss"], None, None
        expert = self.model
        if isinstance(expert, NerExpert):
            predicted = expert.crf.decode(outputs["emissions"], inputs["lengths"])
        else:
            predicted = outputs["logits"].argmax(1)
        return outputs["loss"], predicted, inputs["labels"]


def parameter_groups(model: nn.Module, settings: Optimisation) -> list[dict[str, Any]]:
    """AdamW groups: encoder, head and CRF learning rates; no decay on biases, norms and the CRF.

    Each encoder layer learns `layer_decay` times as fast as the one above it, the embeddings slowest of all.
    """
    names = [name for name, _ in model.named_parameters()]
    layers = 1 + max((int(found[1]) for name in names if (found := _LAYER.search(name))), default=-1)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith("encoder."):
            layer = _LAYER.search(name)
            below = layers - 1 - int(layer[1]) if layer else layers if "embeddings" in name else 0
            rate = settings.learning_rate * settings.layer_decay**below
        elif name.startswith("crf."):
            rate = settings.crf_learning_rate
        else:
            rate = settings.head_learning_rate
        decay = settings.weight_decay if parameter.ndim > 1 and not name.startswith("crf.") else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]


def _ner_f1(expert: NerExpert) -> Any:
    def compute(prediction: EvalPrediction) -> dict[str, float]:
        right = guessed = gold = 0
        for path, labels in zip(np.asarray(prediction.predictions), np.asarray(prediction.label_ids), strict=True):
            length = int((labels >= 0).sum())
            a = set(expert.tagset.spans(path[:length].tolist()))
            b = set(expert.tagset.spans(labels[:length].tolist()))
            right, guessed, gold = right + len(a & b), guessed + len(a), gold + len(b)
        return _prf(right, guessed, gold)

    return compute


def _relation_f1(expert: RelationExpert) -> Any:
    none = expert.spec.labels.index(NO_RELATION) if NO_RELATION in expert.spec.labels else -1

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        guess, gold = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
        return _prf(
            int(((guess == gold) & (gold != none)).sum()), int((guess != none).sum()), int((gold != none).sum())
        )

    return compute


def _prf(right: int, guessed: int, gold: int) -> dict[str, float]:
    precision = 100 * right / guessed if guessed else 0.0
    recall = 100 * right / gold if gold else 0.0
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return {"precision": precision, "recall": recall, "f1": f1}
