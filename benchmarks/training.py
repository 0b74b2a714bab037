"""A training step beside `transformers.Trainer` as it comes, with inputs padded to 512.

Both fine-tune the whole shipped encoder on the same posts, each with evidence from the demo corpus, for one epoch in
batches of 16 under AdamW. Ours: batches by length padded to their longest, emissions and CRF. Theirs:
`BertForTokenClassification`, a linear layer and cross-entropy (less to compute), every input padded to 512.

python benchmarks/training.py --posts twitter2017/train.txt
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from machine import threads
from rows import beside, save
from transformers import AutoConfig, BertForTokenClassification, Trainer, TrainingArguments

from moreie.datasets import read_posts
from moreie.encoders.text import TextEncoder
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.models.assembly import EvidenceForm, View
from moreie.models.expert import ExpertSpec
from moreie.models.ner import NerExpert
from moreie.retrieval.text import TextRetriever
from moreie.shipped import DEMO_CORPUS, TEXT_ENCODER
from moreie.training.features import Collator, Example, Examples, ner_examples
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


def ours(expert: NerExpert, examples: Sequence[Example], folder: Path) -> float:
    """Seconds of an epoch."""
    settings = Optimisation(epochs=1, batch_size=BATCH, precision="fp32")
    arguments = training_arguments(settings, len(examples), folder, 0, disable_tqdm=True)
    arguments.save_strategy = "no"
    trainer = ExpertTrainer(
        model=expert,
        args=arguments,
        train_dataset=Examples(examples),
        data_collator=Collator(expert),
        processing_class=expert.encoder.tokenizer,
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
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    return float(Trainer(model=model, args=arguments, train_dataset=rows).train().metrics["train_runtime"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=Path, required=True)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    posts = list(read_posts(arguments.posts)[: arguments.count])
    evidence = [r.evidence for r in TextRetriever(KnowledgeCorpus.open(DEMO_CORPUS), 10).retrieve(posts)]
    labels = tuple(sorted({m.type for p in posts for m in p.mentions or ()}))
    view = View("text", EvidenceForm.sentence, budget=128)
    encoder = TextEncoder.from_pretrained(TEXT_ENCODER)
    expert = NerExpert(ExpertSpec(task="ner", name="text", labels=labels, view=view, encoder="minilm"), encoder)
    examples = ner_examples(expert, posts, evidence)
    lengths = [len(e.input.input_ids) for e in examples]
    config = AutoConfig.from_pretrained(TEXT_ENCODER, num_labels=len(expert.tagset), vocab_size=len(encoder.tokenizer))
    model = BertForTokenClassification(config)
    model.bert.load_state_dict(encoder.model.state_dict(), strict=False)
    padded = Padded(examples)
    mine, other = [], []
    with tempfile.TemporaryDirectory() as place:
        for repeat in range(arguments.repeats + 1):
            pair = ours(expert, examples, Path(place)), theirs(model, padded, Path(place))
            if repeat:  # the first warms up
                mine.append(pair[0])
                other.append(pair[1])
    work = (
        f"{len(posts)} posts of {arguments.posts.parent.name} with evidence, {statistics.mean(lengths):.0f} sub-tokens "
        f"on average, batches of {BATCH}, {threads()}"
    )
    peer = f"transformers {transformers.__version__} Trainer, padded to {LENGTH}"
    save("training", [beside("training", work, len(posts), mine, other, peer, 3.0)])


if __name__ == "__main__":
    main()
