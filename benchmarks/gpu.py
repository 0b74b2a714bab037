"""On a GPU: the CRF, entities, a mixture's answers and training, each beside a peer on the same GPU.

Tensors lie on the GPU before and behind what is timed of the CRF. Entities: one expert without retrieval beside the
bare encoder in bfloat16 in our batches, which gets sub-token ids and gives states, and beside the `transformers`
pipeline, in batches of 32 or 256 in float32 or bfloat16, whichever is fastest. A mixture: the shipped experts for
entities, their evidence given (retrieval is the processor's work), beside one post at a time. Training: an epoch of
fine-tuning beside `transformers.Trainer` as it comes, inputs padded to 512. Fractions are of the rate of large products
in bfloat16.

python benchmarks/gpu.py --posts experiments/data/twitter2017 --evidence experiments/data/evidence
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from epochs import BATCH, LENGTH, Padded, ours, theirs
from exported import export
from machine import encoder_operations
from rows import Row, beside, save
from torchcrf import CRF
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertForTokenClassification, pipeline

from moreie.datasets import read_posts
from moreie.encoders.batches import fast_batches
from moreie.encoders.text import TextEncoder, batch_tensors
from moreie.models import crf
from moreie.models.assembly import EvidenceForm, View
from moreie.models.expert import EncoderPool, ExpertSpec
from moreie.models.mixture import load_mixture
from moreie.models.ner import NerExpert
from moreie.retrieval.cache import load_evidence
from moreie.shipped import MODEL, TEXT_ENCODER
from moreie.training.features import ner_examples

SHAPES = [(batch, length, labels) for batch in (1, 32) for length in (32, 128) for labels in (9, 17)]


def timed(work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turns(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each run, all of them in turns; the first turn warms up."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            seconds = timed(run)
            if repeat:
                taken[name].append(seconds)
    return taken


def product_rate(device: torch.device) -> float:
    """Operations a second of a large product in bfloat16."""
    size = 8192
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)

    def ten() -> None:
        for _ in range(10):
            torch.mm(a, b, out=out)

    timed(ten)
    return 10 * 2 * size**3 / statistics.median(timed(ten) for _ in range(5))


def crf_rows(batch: int, length: int, labels: int, device: torch.device, repeats: int) -> list[Row]:
    torch.manual_seed(0)
    emissions = torch.randn(batch, length, labels, device=device, requires_grad=True)
    tags = torch.randint(labels, (batch, length), device=device)
    lengths = torch.full((batch,), length, device=device)
    mask = torch.ones(batch, length, dtype=torch.bool, device=device)
    peer = CRF(labels, batch_first=True).to(device)
    scores = [s.detach().clone() for s in (peer.transitions, peer.start_transitions, peer.end_transitions)]
    learnt = [s.clone().requires_grad_() for s in scores]
    fixed = emissions.detach()

    def own_step() -> None:
        (-crf.log_likelihood(emissions, tags, lengths, *learnt).mean()).backward()

    def peer_step() -> None:
        (-peer(emissions, tags, mask=mask, reduction="mean")).backward()

    kinds: dict[str, tuple[str, Callable[[], object], Callable[[], object]]] = {
        "CRF training step": ("pytorch-crf", own_step, peer_step),
        "CRF log-marginals": (
            "plain torch operations",
            lambda: crf.log_marginals(fixed, lengths, *scores),
            lambda: crf.plain_log_marginals(fixed, lengths, *scores),
        ),
        "CRF Viterbi": (
            "pytorch-crf",
            lambda: crf.viterbi(fixed, lengths, *scores),
            lambda: peer.decode(fixed, mask=mask),
        ),
    }
    rows = []
    work = f"B={batch}, T={length}, L={labels}, tensors on the GPU"
    for name, (other, mine, its) in kinds.items():
        with torch.set_grad_enabled(name == "CRF training step"):
            taken = in_turns({"ours": mine, "peer": its}, repeats)
        rows.append(beside(name, work, 1, taken["ours"], taken["peer"], other, 5.0, "steps/s"))
    return rows


def ner_rows(folder: Path, count: int, rate: float, device: torch.device, repeats: int) -> Iterator[Row]:
    posts = [replace(post, image=None) for post in read_posts(folder / "train.txt")[:count]]
    expert: Any = load_mixture(MODEL / "ner", EncoderPool(device)).experts[0]
    inputs = expert.assemble(posts, [()] * len(posts))
    lengths = [len(x.input_ids) for x in inputs]
    texts = [post.text for post in posts]
    with tempfile.TemporaryDirectory() as place:
        export(expert, Path(place))
        bare = AutoModel.from_pretrained(place, dtype=torch.bfloat16).to(device).eval()
        head = BertForTokenClassification(AutoConfig.from_pretrained(place, num_labels=len(expert.tagset)))
        head.bert.load_state_dict(bare.state_dict(), strict=False)
    head.config.id2label = dict(enumerate(expert.tagset.tags))

    @torch.inference_mode()
    def encode() -> None:
        for indices in fast_batches(lengths, device):
            ids, mask = batch_tensors([inputs[i].input_ids for i in indices], 0)
            bare(input_ids=ids.to(device), attention_mask=mask.to(device))

    def pipe(dtype: torch.dtype, size: int) -> Callable[[], object]:
        model = BertForTokenClassification(head.config)
        model.load_state_dict(head.state_dict())
        model.to(device, dtype).eval()
        tokenizer = AutoTokenizer.from_pretrained(TEXT_ENCODER)
        found = pipeline("token-classification", model, tokenizer=tokenizer, device=device)
        return lambda: found(texts, aggregation_strategy="first", batch_size=size)

    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: (expert.encoder.forget(), expert.log_probabilities(expert.assemble(posts, [()] * len(posts)))),
        "bare": encode,
    }
    for dtype, named in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
        for size in (32, 256):
            runs[f"{named}, batches of {size}"] = pipe(dtype, size)
    taken = in_turns(runs, repeats)
    bare_seconds, mine = taken.pop("bare"), taken.pop("ours")
    quickest = min(taken, key=lambda name: statistics.median(taken[name]))
    work = f"{len(posts):,} posts, {sum(lengths):,} sub-tokens"
    name = "entities, one expert, no retrieval"
    library = f"transformers {transformers.__version__}"
    yield beside(name, work, count, mine, taken[quickest], f"{library} pipeline, {quickest}", 1.5)
    yield beside(name, work, count, mine, bare_seconds, f"{library} BertModel in bfloat16, our batches", 0.9)
    operations = encoder_operations(bare.config, lengths)
    for what, seconds in (("entities, one expert", mine), ("the bare encoder", bare_seconds)):
        share = operations / statistics.median(seconds) / rate
        yield Row(f"{what}: share of the rate of large products", work, share, "share")


def mixture_rows(folder: Path, evidence: Path, count: int, device: torch.device, repeats: int) -> Iterator[Row]:
    posts = read_posts(folder / "valid.txt")[:count]
    rows = {
        name: load_evidence(evidence / f"twitter2017-valid-{name}.jsonl.zst", read_posts(folder / "valid.txt"))[1][
            :count
        ]
        for name in ("text", "image")
    }
    mixture: Any = load_mixture(MODEL / "ner", EncoderPool(device))

    def one_by_one() -> None:
        for n, post in enumerate(posts):
            mixture([post], {name: [own[n]] for name, own in rows.items()})

    taken = in_turns({"ours": lambda: mixture(posts, rows), "peer": one_by_one}, repeats)
    work = f"{len(posts)} posts with their evidence, {len(mixture.experts)} experts and the gate"
    yield beside("entities by a mixture", work, count, taken["ours"], taken["peer"], "one post at a time", 4.0)


def training_rows(folder: Path, evidence: Path, count: int, device: torch.device, repeats: int) -> Iterator[Row]:
    posts = read_posts(folder / "train.txt")
    found = load_evidence(evidence / "twitter2017-train-knowledge.jsonl.zst", posts)[1][:count]
    posts = posts[:count]
    labels = tuple(sorted({m.type for p in posts for m in p.mentions or () if m.type}))
    view = View("knowledge", EvidenceForm.lead, k=1, budget=160, passage_limit=110)
    encoder = TextEncoder.from_pretrained(TEXT_ENCODER).to(device)
    spec = ExpertSpec(task="ner", name="knowledge", labels=labels, view=view, encoder="minilm")
    expert = NerExpert(spec, encoder).to(device)
    examples = ner_examples(expert, posts, found)
    config = AutoConfig.from_pretrained(TEXT_ENCODER, num_labels=len(expert.tagset), vocab_size=len(encoder.tokenizer))
    model = BertForTokenClassification(config)
    model.bert.load_state_dict({k: v.cpu() for k, v in encoder.model.state_dict().items()}, strict=False)
    padded, lengths = Padded(examples), [len(e.input.input_ids) for e in examples]
    with tempfile.TemporaryDirectory() as place:
        kinds = {
            "bfloat16, which is the default there": lambda: ours(expert, examples, Path(place), "bf16"),
            "float32": lambda: ours(expert, examples, Path(place), "fp32"),
            "peer": lambda: theirs(model, padded, Path(place)),
        }
        taken: dict[str, list[float]] = {name: [] for name in kinds}
        for repeat in range(repeats + 1):
            for name, run in kinds.items():
                seconds = run()
                if repeat:
                    taken[name].append(seconds)
    other = taken.pop("peer")
    peer = f"transformers {transformers.__version__} Trainer, padded to {LENGTH}"
    for name, mine in taken.items():
        work = f"{count} posts with knowledge, {statistics.mean(lengths):.0f} sub-tokens, batches of {BATCH}, {name}"
        yield beside("training", work, count, mine, other, peer, 3.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=Path, required=True)
    parser.add_argument("--evidence", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU that torch can use: nothing measured")
        return
    device, few = torch.device("cuda"), arguments.repeats
    rate = product_rate(device)
    rows = [Row("large products in bfloat16", "8192 × 8192 × 8192", rate / 1e12, "10^12 operations/s")]
    for shape in SHAPES:
        rows += crf_rows(*shape, device, 3 * few)
    rows += ner_rows(arguments.posts, arguments.count, rate, device, few)
    rows += mixture_rows(arguments.posts, arguments.evidence, arguments.count // 10, device, few)
    rows += training_rows(arguments.posts, arguments.evidence, arguments.count // 4, device, few)
    for row in rows:
        row.machine = f"{torch.cuda.get_device_name()}; {row.machine}"
    save("gpu", rows)


if __name__ == "__main__":
    main()
