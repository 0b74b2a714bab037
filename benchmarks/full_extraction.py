"""Entities and relations with text and image retrieval: ours in batches, beside the same answered naively.

Naively: one post at a time, and once its evidence is there one expert after the other, each a model of its own (a
whole encoder, its adapter folded in; no LoRA to pay for), to which all pairs of the post go as one batch, each an
input of its own, in float32: with levitated markers (`--relations`) ours reads a post once for all of them, and where
the processor has units for bfloat16 it uses them; ours in float32 is measured there, too. Retrieval, gate and decoding
are the same code, and so have to be the answers. Then ours once more, which reads evidence only where the post alone
leaves doubt (`Extractor.selective`), once with text encoders in 8 bits (`Extractor.quantized`), and once with both; how
many posts they answer otherwise is among the rows. Memory is the peak of a fresh process that has answered the posts,
beside one that does the same with a single expert for entities.

python benchmarks/full_extraction.py --posts twitter2017/valid.txt
python benchmarks/full_extraction.py --posts twitter2017/valid.txt --relations runs/mnre-minilm-levitated/seed-1
"""

from __future__ import annotations

import argparse
import atexit
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MethodType
from typing import Any, TypeVar

import torch
from fresh import forget
from machine import arguments_of, threads, with_arithmetic
from pictures import with_pictures
from rows import Row, beside, save
from torch import Tensor

from moreie import Extractor
from moreie.datasets import read_posts
from moreie.encoders.batches import Batch, read_together
from moreie.encoders.last_layer import at
from moreie.encoders.merging import merged_weights
from moreie.encoders.precision import bf16_is_fast, float32
from moreie.encoders.text import TextEncoder
from moreie.models.assembly import Assembled
from moreie.models.expert import EncoderPool, Expert
from moreie.models.mixture import Mixture, load_mixture
from moreie.models.outputs import SaidAhead
from moreie.models.relation import RelationExpert
from moreie.schema import Extraction, Post

T = TypeVar("T")
KINDS = ("ours", "naive", "one expert")
CERTAINTY = 0.9
IN_FLOAT32 = "in float32"


def on_its_own(expert: Expert) -> Expert:
    """The expert with a whole encoder of its own."""
    own = TextEncoder.from_pretrained(expert.encoder.name)
    layers = dict(own.model.named_modules())
    for name, weight in merged_weights(expert.encoder, expert.adapter_name).items():
        layers[name].weight.data = weight
    new = type(expert)(expert.spec.model_copy(update={"adapter": None}), own)
    new.load_state_dict(expert.head_state(), strict=False)
    new.batches = MethodType(in_one_batch, new)
    if isinstance(new, RelationExpert):
        new.saying = MethodType(each_pair, new)
    return new.eval()


def each_pair(expert: RelationExpert, inputs: Sequence[Assembled], **_: Any) -> list[Batch[Tensor]]:
    """What `RelationExpert.saying` gives, each pair an input of its own."""

    def answers(states: Tensor, _: Tensor) -> list[Tensor]:
        return list(torch.log_softmax(expert.classifier(states.flatten(1)), dim=1))

    return in_one_batch(expert, inputs, None, answers)


def in_one_batch(
    expert: Expert, inputs: Sequence[Assembled], _: int | None, answers: Callable[[Tensor, Tensor], Sequence[T]]
) -> list[Batch[T]]:
    """What `Expert.batches` gives, in one batch, by the encoder's own forward pass."""

    @torch.no_grad()
    def read() -> Sequence[T]:
        batch = {k: v.to(expert.encoder.device) for k, v in expert.collate(inputs).items()}
        hidden = expert.encoder(batch["input_ids"], batch["attention_mask"], batch.get("positions"))
        return answers(at(hidden, batch["anchors"]), batch["lengths"])

    return [Batch(range(len(inputs)), read)] if inputs else []


def one_after_the_other(mixture: Mixture[Any]) -> None:
    """Have its experts read by themselves, each by all threads, once all evidence is there."""

    def at_once(expert: Expert) -> Callable[..., list[Batch[Tensor]]]:
        saying = expert.saying

        def said(inputs: Sequence[Assembled], **settings: Any) -> list[Batch[Tensor]]:
            (found,) = read_together([saying(inputs, **settings)], expert.encoder.device)
            return [Batch(range(len(inputs)), lambda: found)]

        return said

    for expert in mixture.experts:
        expert.saying = at_once(expert)
    mixture.ahead = lambda cases, states: SaidAhead({}, {})  # type: ignore[method-assign]


def of_mixtures(extractor: Extractor, ner: Mixture[Any], relations: Mixture[Any] | None) -> Extractor:
    return Extractor(
        ner,
        relations,
        corpus=extractor.corpus,
        image_encoder=extractor.image_encoder,
        k=extractor.k,
        image_floor=extractor.image_floor,
        text_mode=extractor.text_mode,
        name=extractor.name,
    )


@cache
def folder_with(relations: Path) -> str:
    """A model folder: the shipped entity experts, and the relation experts of a trained seed, over one encoder."""
    extractor = Extractor.from_pretrained()
    place = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, place)
    of_mixtures(extractor, extractor.ner, load_mixture(relations, EncoderPool())).save_pretrained(place)
    return place


def loaded(relations: Path | None) -> Extractor:
    """The shipped extractor, or it with the relation experts of a trained seed."""
    shipped = Extractor.from_pretrained()
    return shipped if relations is None else Extractor.from_pretrained(folder_with(relations), corpus=shipped.corpus)


def made(kind: str, trained: Path | None) -> Extractor:
    extractor = loaded(trained)
    if kind == "ours":
        return extractor
    if kind == "one expert":
        text = next(e for e in extractor.ner.experts if e.spec.view.retriever == "text")
        return of_mixtures(extractor, Mixture([text], None), None)
    mixtures = extractor.ner, loaded(trained).relations
    for mixture in mixtures:
        # The gate reads the post by the bare encoder, which is the first expert's: this one keeps its adapter.
        first, *others = mixture.experts
        mixture.experts = (first, *map(on_its_own, others))
        one_after_the_other(mixture)
    return of_mixtures(extractor, *mixtures)


def one_by_one(extractor: Extractor, posts: Sequence[Post]) -> tuple[list[Extraction], list[float]]:
    """Extractions, and the seconds of each."""
    found, taken = [], []
    forget(extractor)
    for post in posts:
        start = time.perf_counter()
        found.append(extractor.extract(post))
        taken.append(time.perf_counter() - start)
    return found, taken


def all_in_one(extractor: Extractor, posts: Sequence[Post]) -> tuple[list[Extraction], float]:
    """Extractions, and the seconds of all."""
    forget(extractor)
    start = time.perf_counter()
    found = extractor.extract_batch(posts)
    return found, time.perf_counter() - start


def unlike(found: Sequence[Extraction], others: Sequence[Extraction]) -> int:
    """Posts answered otherwise."""
    return sum(a != b for a, b in zip(answers(found), answers(others), strict=True))


def answers(found: Sequence[Extraction]) -> list[Any]:
    return [
        ([(m.type, m.first, m.last) for m in e.mentions], sorted((r.type, r.head, r.tail) for r in e.relations))
        for e in found
    ]


def peak() -> float:
    """MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e3


def memory(kind: str, arguments: argparse.Namespace) -> float:
    command = [sys.executable, __file__, "--posts", str(arguments.posts), "--count", str(arguments.count)]
    command += ["--relations", str(arguments.relations)] if arguments.relations else []
    done = subprocess.run([*command, "--memory-of", kind], check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=Path, required=True)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--relations", type=Path, help="a seed's folder: its relation experts instead of the shipped")
    parser.add_argument("--memory-of", choices=KINDS, help=argparse.SUPPRESS)
    arguments = arguments_of(parser)
    pictures = tempfile.TemporaryDirectory()
    posts = with_pictures(read_posts(arguments.posts)[: arguments.count], Path(pictures.name))
    bare = [replace(p, image=None) for p in posts]
    if arguments.memory_of:
        extractor = made(arguments.memory_of, arguments.relations)
        if arguments.memory_of == "naive":
            one_by_one(extractor, posts)
        else:
            extractor.extract_batch(posts)
        print(json.dumps(peak()))
        return
    ours, naive = (made(kind, arguments.relations) for kind in ("ours", "naive"))
    experts = len(ours.ner.experts) + (len(ours.relations.experts) if ours.relations else 0)
    certain = f"evidence read where the post leaves doubt (certainty {CERTAINTY})"
    small = ours.quantized()
    others = {
        certain: ours.selective(CERTAINTY),
        "8 bits": small,
        f"{certain}, 8 bits": small.selective(CERTAINTY),
    }
    if bf16_is_fast("cpu"):
        others[IN_FLOAT32] = ours
    rows = []
    for given, what in ((posts, "each with a picture of its own"), (bare, "without pictures")):
        mine, theirs, single, naive_single = [], [], [], []
        taken_otherwise: dict[str, list[float]] = {name: [] for name in others}
        answered_otherwise = dict.fromkeys(others, 0)
        for repeat in range(arguments.repeats + 1):
            found, seconds = all_in_one(ours, given)
            for name, other in others.items():
                with float32() if name == IN_FLOAT32 else nullcontext():
                    spared, other_seconds = all_in_one(other, given)
                answered_otherwise[name] = unlike(found, spared)
                if repeat:
                    taken_otherwise[name].append(other_seconds)
            with float32():
                naive_found, naive_taken = one_by_one(naive, given)
            _, taken = one_by_one(ours, given)
            if not repeat:  # warms up
                otherwise = unlike(found, naive_found)
                print(f"{what}: {otherwise} of {len(given)} posts are answered otherwise (rounding)")
                continue
            mine.append(seconds)
            theirs.append(sum(naive_taken))
            single += taken
            naive_single += naive_taken
        work = f"{len(given)} posts of {arguments.posts.parent.name}, {what}, {experts} experts, {threads()}"
        plain = work
        if otherwise:
            work += f"; {otherwise} posts are answered otherwise"
        peer = "one post at a time, a model for each expert"
        rows.append(beside("full extraction", work, len(given), mine, theirs, peer, 4.0))
        for name in others:
            own_work = f"{plain}; {answered_otherwise[name]} posts are answered otherwise than by the first"
            rows.append(
                beside(f"full extraction, {name}", own_work, len(given), taken_otherwise[name], theirs, peer, 4.0)
            )
        for share, name in ((50, "p50"), (99, "p99")):
            own, other = (1e3 * statistics.quantiles(t, n=100)[share - 1] for t in (single, naive_single))
            ratio = other / own
            rows.append(
                Row(f"full extraction of one post, {name}", work, own, "ms", peer, other, ratio, (ratio, ratio))
            )
    used = {kind: memory(kind, arguments) for kind in KINDS}
    work = f"peak of a fresh process, {len(posts)} posts with pictures"
    for kind, peer, target in (("one expert", "a single expert for entities", 1.3), ("naive", "naively", None)):
        ratio = used["ours"] / used[kind]
        met = None if target is None else ratio <= target
        rows.append(
            Row(
                f"memory of full extraction, as a share of that of {peer} (at most)",
                work,
                used["ours"],
                "MB",
                peer,
                used[kind],
                ratio,
                (ratio, ratio),
                target,
                met,
            )
        )
    save(with_arithmetic("full_extraction_levitated" if arguments.relations else "full_extraction"), rows)


if __name__ == "__main__":
    main()
