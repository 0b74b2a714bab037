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
from pathlib import Path

import transformers
from epochs import BATCH, LENGTH, Padded, ours, theirs
from machine import arguments_of, threads, with_arithmetic
from rows import beside, save
from transformers import AutoConfig, BertForTokenClassification

from moreie.datasets import read_posts
from moreie.encoders.text import TextEncoder
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.models.assembly import EvidenceForm, View
from moreie.models.expert import ExpertSpec
from moreie.models.ner import NerExpert
from moreie.retrieval.text import TextRetriever
from moreie.shipped import DEMO_CORPUS, TEXT_ENCODER
from moreie.training.features import ner_examples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=Path, required=True)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = arguments_of(parser)
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
    save(with_arithmetic("training"), [beside("training", work, len(posts), mine, other, peer, 3.0)])


if __name__ == "__main__":
    main()
