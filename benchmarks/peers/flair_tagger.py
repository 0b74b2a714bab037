"""`flair` with the weights of one of our experts, in an environment of its own (it needs transformers 4).

Started by `ner_speed.py` with a folder that holds the encoder in Hugging Face form and `head.pt`. Reads
`{"posts": [[word, …], …], "batch": n, "bfloat16": b}` from standard input, a line each, and answers
`{"spans": [[[type, first word, last word], …], …], "seconds": s}`.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

import flair
import torch
from flair.data import Dictionary, Sentence
from flair.embeddings import TransformerWordEmbeddings
from flair.models import SequenceTagger

NEVER = -10000.0


def tagger(folder: Path) -> SequenceTagger:
    """The transformer, a linear layer and a CRF, no recurrent layer: what flair fine-tunes by default."""
    head = torch.load(folder / "head.pt")
    labels = Dictionary(add_unk=False)
    for tag in head["tags"]:
        labels.add_item(tag)
    labels.set_start_stop_tags()
    embeddings = TransformerWordEmbeddings(
        str(folder), layers="-1", subtoken_pooling="first", fine_tune=True, use_context=False
    )
    model = SequenceTagger(
        embeddings,
        labels,
        "ner",
        use_rnn=False,
        use_crf=True,
        reproject_embeddings=False,
        tag_format="BIOES",
        init_from_state_dict=True,  # the dictionary holds tags, not types
        dropout=0.0,
        word_dropout=0.0,
        locked_dropout=0.0,
    )
    size, count = len(labels), len(head["tags"])
    begin, end = labels.get_idx_for_item("<START>"), labels.get_idx_for_item("<STOP>")
    transitions = torch.full((size, size), NEVER)  # [to, from]
    transitions[:count, :count] = head["transitions"].T
    transitions[:count, begin] = head["start"]
    transitions[end, :count] = head["end"]
    weight, bias = torch.zeros(size, head["weight"].shape[1]), torch.full((size,), NEVER)
    weight[:count], bias[:count] = head["weight"], head["bias"]
    with torch.no_grad():
        model.crf.transitions.copy_(transitions)
        model.linear.weight.copy_(weight)
        model.linear.bias.copy_(bias)
    return model.eval()


def main() -> None:
    logging.getLogger("flair").setLevel(logging.ERROR)
    flair.device = torch.device("cpu")
    answers, sys.stdout = sys.stdout, sys.stderr  # what flair prints is no answer
    model = tagger(Path(sys.argv[1]))
    print(json.dumps({"version": flair.__version__}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        sentences = [Sentence(words) for words in asked["posts"]]
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=asked["bfloat16"]):
            model.predict(sentences, mini_batch_size=asked["batch"])
        taken = time.perf_counter() - start
        spans = [[[s.tag, s[0].idx - 1, s[-1].idx - 1] for s in sentence.get_spans("ner")] for sentence in sentences]
        print(json.dumps({"spans": spans, "seconds": taken}), file=answers, flush=True)


if __name__ == "__main__":
    main()
