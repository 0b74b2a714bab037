"""What moreie finds on a machine: each part is tried for real, and said to be well, absent or broken."""

from __future__ import annotations

import importlib
import importlib.metadata
import io
import os
import platform
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

State = Literal["well", "absent", "broken"]
LEAST_PYTHON = (3, 10)
LITTLE_DISK = 2 * 2**30
PURPOSES = {
    "serve": "the HTTP service with its page (`moreie serve`)",
    "cluster": "corpora in Milvus (`milvus://…`)",
    "ray": "corpus builds on many machines (`--workers ray://…`)",
    "spacy": "the spaCy component, `Extraction.to_spacy()`",
    "datasets": "Hugging Face data sets",
    "pandas": "tables, `Extraction.to_pandas()`",
}
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
SENTENCE = "Barack Obama meets Angela Merkel in Berlin"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the environment. `broken`: something that is needed does not work; `absent`: something optional is
    not there, and `remedy` says how to have it."""

    name: str
    state: State
    said: str
    remedy: str = ""


def parts(corpus: str | None = None) -> Iterator[Part]:
    """All parts, the quick ones first; `corpus`: one of the user's to be tried too, a folder or a Milvus URI."""
    probes: list[tuple[str, Callable[[], Iterator[Part]]]] = [
        ("Python", _python),
        ("moreie", _moreie),
        ("libraries", _libraries),
        ("torch", _torch),
        ("kernels", _kernels),
        ("pictures", _pictures),
        ("disk", _disk),
        ("shipped model", _model),
    ]
    if corpus is not None:
        probes.append((f"corpus {corpus}", lambda: _corpus(corpus)))
    for name, probe in probes:
        try:
            yield from probe()
        except Exception as problem:  # whatever breaks a part is what the user has to be told
            yield Part(name, "broken", f"{type(problem).__name__}: {problem}")


def _python() -> Iterator[Part]:
    wanted = ".".join(map(str, LEAST_PYTHON))
    new = sys.version_info >= LEAST_PYTHON
    said = f"{platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    yield Part("Python", "well" if new else "broken", said, "" if new else f"Python {wanted} or later")


def _moreie() -> Iterator[Part]:
    from moreie import __version__

    yield Part("moreie", "well", f"{__version__}, in {Path(__file__).parent}")


def _libraries() -> Iterator[Part]:
    """What moreie's own metadata asks for, in the versions that are installed; then the extras."""
    from packaging.requirements import Requirement

    own = [Requirement(line) for line in importlib.metadata.requires("moreie") or ()]
    extras = importlib.metadata.metadata("moreie").get_all("Provides-Extra") or []
    needed = [r for r in own if r.marker is None or r.marker.evaluate({"extra": ""})]
    unmet = {r: problem for r in needed if (problem := _unmet(r.name, str(r.specifier)))}
    yield Part(
        "libraries",
        "broken" if unmet else "well",
        "; ".join(unmet.values()) or f"all {len(needed)} that are needed, in versions that fit",
        shlex.join(["pip", "install", *(f"{r.name}{r.specifier}" for r in unmet)]) if unmet else "",
    )
    for extra in sorted(set(extras) - {"dev"}):
        asked = [r for r in own if r not in needed and r.marker and r.marker.evaluate({"extra": extra})]
        missing = [problem for r in asked if (problem := _unmet(r.name, str(r.specifier)))]
        purpose = PURPOSES.get(extra, "")
        said = f"{purpose}; {'; '.join(missing)}" if missing else f"{purpose}: there"
        remedy = f"pip install 'moreie[{extra}]'" if missing else ""
        yield Part(f"extra {extra}", "absent" if missing else "well", said.lstrip(";: "), remedy)


def _unmet(name: str, versions: str) -> str:
    """What is wrong with an installed library, "" where it is as it should be."""
    from packaging.specifiers import SpecifierSet

    try:
        installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"{name} is not installed"
    fits = SpecifierSet(versions).contains(installed, prereleases=True)
    return "" if fits else f"{name} {installed} is installed, {versions} is needed"


def _torch() -> Iterator[Part]:
    import torch

    from moreie.encoders.asked import VARIABLE, wants_float32
    from moreie.encoders.precision import bf16_is_fast, default_device
    from moreie.errors import EncoderError

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "processor only"
    yield Part("torch", "well", f"{torch.__version__} ({build}), {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        said = ", ".join(f"{card.name} ({card.total_memory / 2**30:.0f} GiB)" for card in cards)
        yield Part("GPU", "well", said)
    else:
        why = "this build of torch knows no GPU" if not torch.version.cuda else "no GPU that torch can use"
        yield Part("GPU", "absent", f"{why}; the processor does the work")
    try:
        fast = bf16_is_fast(default_device())
    except EncoderError as problem:
        yield Part("bfloat16", "broken", str(problem), f"unset {VARIABLE}")
        return
    slow = f"not used: {VARIABLE} asks for float32" if wants_float32() else "not fast here, so arithmetic is in 32 bits"
    yield Part("bfloat16", "well", "fast here, so it is used" if fast else slow)


def _kernels() -> Iterator[Part]:
    import torch

    from moreie.encoders import attention
    from moreie.encoders.batches import computing_with
    from moreie.encoders.int8_product import Int8Product
    from moreie.encoders.products import fast_product
    from moreie.kernels.build import compiler
    from moreie.models.crf_kernels import load, viterbi

    if load():
        scores = torch.zeros(3)
        paths, _ = viterbi(torch.eye(3)[None], torch.tensor([3]), torch.zeros(3, 3), scores, scores)
        states = torch.eye(64)[None]
        with computing_with(1):  # with many torch's own kernel is taken
            found = attention.attended(states, states, states, 1)
        expected = attention.by_torch(states, states, states, 1)
        right = paths.tolist() == [[0, 1, 2]] and torch.allclose(found, expected, atol=1e-5)
        small = Int8Product([states[0]], [torch.zeros(64)], torch.float32)
        right = right and torch.allclose(small(states), states, atol=1e-5)
        halves = states[0].bfloat16()
        right = right and torch.equal(fast_product([halves], [torch.zeros(64)])(halves), halves)
        yield Part("kernels", "well" if right else "broken", "compiled" if right else "compiled, and answer wrongly")
        return
    command = compiler()
    found_one = f"a C++ compiler is there ({command[0]})" if command else "no C++ compiler"
    remedy = "python -m moreie.kernels.build"
    if not command:
        remedy = f"install g++ or clang, then the same command: {remedy}"
    yield Part(
        "kernels", "absent", f"not compiled; torch does the same, more slowly, but for 8 bits. {found_one}", remedy
    )


def _pictures() -> Iterator[Part]:
    from PIL import Image

    from moreie.encoders.images import decode_image

    unread = []
    for kind in FORMATS:
        try:
            file = io.BytesIO()
            Image.new("RGB", (8, 8)).save(file, kind)
            decode_image(file.getvalue(), kind)
        except (OSError, KeyError, ValueError):
            unread.append(kind)
    if unread:
        yield Part("pictures", "broken", f"cannot be read: {', '.join(unread)}", "pip install --force-reinstall pillow")
    else:
        yield Part("pictures", "well", f"read: {', '.join(FORMATS)}")


def _disk() -> Iterator[Part]:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    for name, folder in (("disk, here", Path.cwd()), ("disk, temporary", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        little = free < LITTLE_DISK
        yield Part(
            name,
            "broken" if little else "well",
            f"{free / 2**30:.1f} GiB free in {folder}",
            "make room: a training needs a few GiB" if little else "",
        )
    offline = ", offline (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else ""
    yield Part("cache of the hub", "well", f"{_held(cache)}{offline}")


def _held(folder: Path) -> str:
    used = sum(f.lstat().st_size for f in folder.rglob("*") if f.is_file()) if folder.is_dir() else 0
    return f"{folder}: {used / 2**30:.1f} GiB"


def _model() -> Iterator[Part]:
    from moreie.extractor import Extractor

    begun = time.perf_counter()
    extractor = Extractor.from_pretrained()
    loaded = time.perf_counter() - begun
    begun = time.perf_counter()
    found = extractor.extract(SENTENCE)
    took = time.perf_counter() - begun
    right = ("Angela Merkel", "PER") in found.entities
    entities = ", ".join(f"{text} {type}" for text, type in found.entities)
    passages = extractor.corpus.manifest.passages if extractor.corpus else 0
    yield Part(
        "shipped model",
        "well" if right else "broken",
        f"loaded in {loaded:.1f} s, read a post in {took:.2f} s: {entities}",
        "" if right else "the installation is damaged: install moreie again",
    )
    yield Part(
        "demo corpus",
        "well" if found.evidence else "broken",
        f"{passages:,} passages, {len(found.evidence)} found for the post",
    )


def _corpus(location: str) -> Iterator[Part]:
    from moreie.knowledge.corpus import KnowledgeCorpus

    begun = time.perf_counter()
    corpus = KnowledgeCorpus.open(location)
    (hits,) = corpus.search_sentences([SENTENCE], 1)
    said = f"{corpus.manifest.passages:,} passages, {corpus.manifest.images:,} pictures; a query in all in "
    first = f", first {hits[0][0].title!r}" if hits else ", nothing found"
    yield Part(f"corpus {location}", "well", f"{said}{time.perf_counter() - begun:.1f} s{first}")
