"""Entities of posts by one expert without retrieval: beside flair, a `transformers` pipeline, and the bare encoder.

All have the same weights: the shipped baseline expert, its adapter folded into the encoder. flair gets emission and
CRF scores and has to find the very entities that our Viterbi finds; the pipeline has no CRF and gets the emissions. The
bare encoder is one `BertModel` over the same sub-tokens, batch by batch with all threads in each product, and in our
batches side by side. Batches of flair hold 32 posts (its default), those of the pipeline one (its default) or 32,
whichever is faster. Ours and each peer run in turns.

flair and the pipeline compute in float32, as they do by default. On a processor with units for bfloat16 extraction uses
them by itself, the bare encoder then likewise; beside that stand ours in float32, and flair and the pipeline under
torch's autocast.

flair needs transformers 4, hence an environment of its own:

    python -m venv flair-venv && flair-venv/bin/pip install flair==0.15.1 "transformers<5"
    python benchmarks/ner_speed.py --posts twitter2017/valid.txt --flair-python flair-venv/bin/python
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from exported import export
from fresh import forget
from machine import arguments_of, bandwidth, encoder_floor, matmul_rate, threads, with_arithmetic
from rows import Row, beside, save
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertForTokenClassification, pipeline

from moreie import Extractor
from moreie.datasets import read_posts
from moreie.encoders.batches import fast_batches, length_batches, read_together, side_by_side
from moreie.encoders.precision import autocast, fast_batch, float32, product_kind
from moreie.encoders.text import batch_tensors
from moreie.models.mixture import Mixture
from moreie.models.ner import NerExpert
from moreie.schema import Post
from moreie.shipped import TEXT_ENCODER

PEER = Path(__file__).parent / "peers" / "flair_tagger.py"
BATCH = 32
FLOAT32, BFLOAT16 = ", float32", ", bfloat16"


class Flair:
    """The peer's process; `seconds` asks it for one run."""

    def __init__(self, python: str, folder: Path, posts: Sequence[Post]):
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen([python, "-W", "ignore", str(PEER), str(folder)], **pipes)
        self._asked = {"posts": [[w.text for w in p.words] for p in posts], "batch": BATCH}
        self.version = json.loads(self._process.stdout.readline())["version"]  # type: ignore[union-attr]

    def run(self, *, bfloat16: bool = False) -> dict[str, Any]:
        print(json.dumps(self._asked | {"bfloat16": bfloat16}), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())  # type: ignore[union-attr]

    def close(self) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait(60)


def viterbi_spans(expert: NerExpert, posts: Sequence[Post]) -> list[list[list[Any]]]:
    """[type, first, last] of each post's entities on the CRF's best path, which is what flair gives."""
    inputs = expert.assemble(posts, [()] * len(posts))

    def answers(states: Tensor, lengths: Tensor) -> list[list[list[Any]]]:
        paths = expert.crf.decode(expert.emission(states), lengths)
        own = [path[:length].tolist() for path, length in zip(paths, lengths.tolist(), strict=True)]
        return [[list(span) for span in expert.tagset.spans(tags)] for tags in own]

    (said,) = read_together([expert.batches(inputs, None, answers)], "cpu")
    return said


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_float32(run: Callable[[], float]) -> float:
    with float32():
        return run()


def under_autocast(run: Callable[[], float]) -> float:
    with torch.autocast("cpu", torch.bfloat16):
        return run()


def with_weights_in(kind: torch.dtype, model: Any) -> Any:
    """A copy whose layers do not have to cast their weights under autocast."""
    other = copy.deepcopy(model)
    for layer in other.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight.data = layer.weight.data.to(kind)
    return other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--flair-python", default=None, help="interpreter of an environment with flair")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = arguments_of(parser)
    posts = [replace(post, image=None) for post in read_posts(arguments.posts)[: arguments.count]]
    expert: NerExpert = Extractor.from_pretrained().ner.experts[0]
    extractor = Extractor(Mixture([expert], None), None, corpus=None, image_encoder=None)
    inputs = expert.assemble(posts, [()] * len(posts))
    lengths = [len(x.input_ids) for x in inputs]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        export(expert, folder)
        bare = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        tagger = BertForTokenClassification(AutoConfig.from_pretrained(folder, num_labels=len(expert.tagset)))
        tagger.bert.load_state_dict(bare.state_dict(), strict=False)
        tagger.classifier.load_state_dict({k: v.data for k, v in expert.emission.named_parameters()})
        tagger.config.id2label = dict(enumerate(expert.tagset.tags))
        found = pipeline("token-classification", tagger.eval(), tokenizer=AutoTokenizer.from_pretrained(TEXT_ENCODER))
        texts = [post.text for post in posts]

        native = product_kind("cpu")
        encoders = {torch.float32: bare, native: with_weights_in(native, bare)}

        @torch.inference_mode()
        def forward(indices: list[int]) -> None:
            ids, mask = batch_tensors([inputs[i].input_ids for i in indices], 0)
            with autocast("cpu"):
                encoders[product_kind("cpu")](input_ids=ids, attention_mask=mask)

        def in_turn() -> None:
            for indices in length_batches(lengths, fast_batch("cpu") * torch.get_num_threads()):
                forward(indices)

        def tagged(size: int) -> None:
            found(texts, aggregation_strategy="first", batch_size=size)

        runs: dict[str, Callable[[], float]] = {
            "ours": lambda: timed(lambda: extractor.extract_batch(posts)),
            "bare encoder": lambda: timed(in_turn),
            "side by side": lambda: timed(lambda: side_by_side(forward, fast_batches(lengths, "cpu"), "cpu")),
            "pipeline 1": lambda: timed(lambda: tagged(1)),
            "pipeline 32": lambda: timed(lambda: tagged(BATCH)),
        }
        flair = Flair(arguments.flair_python, folder, posts) if arguments.flair_python else None
        if flair:
            with float32():
                theirs, own = flair.run()["spans"], viterbi_spans(expert, posts)
            if unlike := [post.id for post, a, b in zip(posts, theirs, own, strict=True) if a != b]:
                raise SystemExit(
                    f"flair finds other entities in {len(unlike)} posts, the first {unlike[0]}: not the same model"
                )
            runs["flair"] = lambda: flair.run()["seconds"]
        if native is torch.bfloat16:
            for name in ("ours", "bare encoder", "side by side"):
                runs[name + FLOAT32] = partial(in_float32, runs[name])
            for size in (1, BATCH):
                runs[f"pipeline {size}" + BFLOAT16] = partial(under_autocast, runs[f"pipeline {size}"])
            if flair:
                runs["flair" + BFLOAT16] = lambda: flair.run(bfloat16=True)["seconds"]
        taken: dict[str, list[float]] = {name: [] for name in runs}
        for repeat in range(arguments.repeats + 1):
            for name, run in runs.items():
                forget(extractor)
                seconds = run()
                if repeat:  # the first warms up
                    taken[name].append(seconds)
        if flair:
            flair.close()
    library = f"transformers {transformers.__version__}"
    peers = {
        "flair": (f"flair {flair.version if flair else ''} SequenceTagger", 2.0),
        "pipeline 1": (f"{library} pipeline, batches of 1", 1.5),
        f"pipeline {BATCH}": (f"{library} pipeline, batches of {BATCH}", 1.5),
        "bare encoder": (f"{library} BertModel, batch by batch", 0.9),
        "side by side": (f"{library} BertModel, our batches side by side", 0.9),
    }
    work = f"{len(posts)} posts of {arguments.posts.parent.name}, {sum(lengths):,} sub-tokens, {threads()}"

    def rows_of(mark: str, peers_mark: str, names: Sequence[str], *, aimed: bool = True) -> list[Row]:
        """Ours of this mark beside these peers of that; of the two pipelines beside the quicker."""
        pipelines = [name for name in names if name.startswith("pipeline")]
        slower = max(pipelines, key=lambda n: statistics.median(taken[n + peers_mark])) if pipelines[1:] else None
        own = "entities, one expert, no retrieval" + mark
        return [
            beside(
                own,
                work,
                len(posts),
                taken["ours" + mark],
                taken[name + peers_mark],
                peers[name][0] + peers_mark,
                peers[name][1] if aimed else None,
            )
            for name in names
            if name != slower
        ]

    libraries = [name for name in ("flair", "pipeline 1", f"pipeline {BATCH}") if name in taken]
    encoder_runs = ["bare encoder", "side by side"]
    rows = rows_of("", "", [*libraries, *encoder_runs])
    if native is torch.bfloat16:
        rows += rows_of("", BFLOAT16, libraries, aimed=False)
        rows += rows_of(FLOAT32, "", libraries) + rows_of(FLOAT32, FLOAT32, encoder_runs)
    for mark, kind in {"": native, FLOAT32: torch.float32}.items():
        if "ours" + mark in taken:
            rate = matmul_rate(kind=kind)
            floor = encoder_floor(bare.config, lengths, rate, bandwidth())
            peer = f"floor: the encoder's products at {rate / 1e9:.0f} · 10^9 operations/s"
            own = f"entities, one expert, beside the floor{mark}"
            rows.append(beside(own, work, len(posts), taken["ours" + mark], [floor], peer, None))
    save(with_arithmetic("ner_speed"), rows)


if __name__ == "__main__":
    main()
