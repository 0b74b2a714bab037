"""Fixtures shared by all rooms: a tiny real encoder, a small real corpus, example posts."""

from __future__ import annotations

import ctypes
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from moreie.encoders.images import ImageEncoder
    from moreie.encoders.text import TextEncoder
    from moreie.extractor import Extractor
    from moreie.training.recipe import Recipe

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    """Small genuine excerpts (see tests/data/README.md)."""
    return DATA


@pytest.fixture(scope="session", autouse=True)
def in_float32() -> Iterator[None]:
    """Tests compare numbers: they, and the processes that they start, compute in float32 on every machine.
    `tests/encoders/test_precision.py` is about what a machine does by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOREIE_PRECISION", "float32")
        yield


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test of a `variant` of the compiled kernels runs for each that this processor can do."""
    if "variant" in metafunc.fixturenames:
        metafunc.parametrize("variant", able_variants())


def able_variants() -> list[str]:
    """Those of the compiled kernels that this processor can do."""
    import torch

    from moreie.kernels.build import VARIANTS

    able, every = torch.backends.cpu.get_cpu_capability(), list(VARIANTS)
    return every[: every.index(able) + 1] if able in every else every[:1]


@pytest.fixture(scope="session")
def kernels_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The variants that this processor can do, as they were installed, or else compiled for the tests."""
    from moreie.kernels.build import FOLDER, build, compiler, library_names

    names = {library_names()[variant] for variant in able_variants()}
    if names <= {path.name for path in FOLDER.iterdir()}:
        return FOLDER
    if compiler() is None:
        pytest.skip("no C++ compiler on this machine, so there are no kernels")
    folder = tmp_path_factory.mktemp("kernels")
    built = {path.name for path in build(folder)}
    assert built >= names, "there is a C++ compiler, but not all kernels were built"
    return folder


@pytest.fixture
def variant_library(variant: str, kernels_folder: Path) -> ctypes.CDLL:
    """The variant's library."""
    from moreie.kernels import library

    found = library.load(kernels_folder, variant)
    assert found is not None
    return found


@pytest.fixture(scope="session")
def tiny_encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer BERT with random weights and a WordPiece vocabulary learnt from the example posts."""
    import torch
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-bert")
    tokenizer = BertWordPieceTokenizer(lowercase=True)
    texts = [json.loads(line)["text"] for line in (DATA / "posts.jsonl").read_text().splitlines()]
    tokenizer.train_from_iterator(texts * 5, vocab_size=400, min_frequency=1, show_progress=False)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer,
        unk_token="[UNK]",
        sep_token="[SEP]",
        cls_token="[CLS]",
        pad_token="[PAD]",
        mask_token="[MASK]",
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(fast),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=256,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", params=["transformers", "own"])
def either_encoder_folder(
    request: pytest.FixtureRequest, tiny_encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny BERT as `transformers` computes it, and as it is once saved with the project's markers."""
    if request.param == "transformers":
        return tiny_encoder_folder
    from moreie.encoders.text import TextEncoder

    folder = tmp_path_factory.mktemp("own-bert")
    TextEncoder.from_pretrained(tiny_encoder_folder).save(folder)
    return folder


@pytest.fixture
def encoder_of_kind(tmp_path: Path, tiny_encoder_folder: Path) -> Callable[[type[Any]], TextEncoder]:
    """Makes encoders of random weights of a kind (a `transformers` configuration): else they are as the tiny BERT."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    from moreie.encoders.text import TextEncoder

    def made(configuration: type[Any]) -> TextEncoder:
        tokenizer = AutoTokenizer.from_pretrained(tiny_encoder_folder)
        small = AutoConfig.from_pretrained(tiny_encoder_folder).to_diff_dict()
        sizes = {
            key: small[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        }
        torch.manual_seed(0)
        folder = tmp_path / configuration.__name__
        AutoModel.from_config(configuration(vocab_size=len(tokenizer), pad_token_id=0, **sizes)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return TextEncoder.from_pretrained(folder)

    return made


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_folder: Path) -> ImageEncoder:
    """A CLIP of random weights: both towers and their preparation are real. Its name is its folder."""
    import torch
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel

    from moreie.encoders.images import ImageEncoder

    folder = tmp_path_factory.mktemp("clip")
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder_folder)
    # CLIP's vector of a text is the state of its end token, which has to be there.
    ends = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    special = {"bos_token_id": 0, "eos_token_id": tokenizer.sep_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**small, **special, "vocab_size": len(tokenizer), "max_position_embeddings": 40},
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ImageEncoder.from_pretrained(folder)


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus folder built for real from genuine articles."""
    from moreie.knowledge.build import Sources, build_corpus

    destination = tmp_path_factory.mktemp("corpus") / "small"
    build_corpus(destination, Sources(articles=(DATA / "articles.jsonl",)))
    return destination


@pytest.fixture(scope="session")
def extractor() -> Extractor:
    """The model, the image encoder and the corpus that ship with the package."""
    from moreie.extractor import Extractor

    return Extractor.from_pretrained()


@pytest.fixture(scope="session")
def recipe_file(tiny_encoder_folder: Path, data: Path, small_corpus: Path) -> Callable[..., Path]:
    """`recipe_file(folder, **change)` writes a recipe and its evidence into a folder and returns its path.

    It is one over a few posts and the tiny encoder, with evidence from the small corpus.
    """
    import yaml

    from moreie.datasets import read_posts
    from moreie.knowledge.corpus import KnowledgeCorpus
    from moreie.retrieval.cache import EvidenceHeader, save_evidence
    from moreie.retrieval.text import CaptionRetriever, TextRetriever

    def write(folder: Path, **change: Any) -> Path:
        task = change.get("task", "ner")
        posts = data / ("twitter2017-sample.txt" if task == "ner" else "mnre-sample.txt")
        folder.mkdir(parents=True, exist_ok=True)
        read = read_posts(posts)
        opened = KnowledgeCorpus.open(small_corpus)
        captioned = [replace(p, caption=p.text) for p in read]
        for name, rows in (
            ("text", TextRetriever(opened, 3).retrieve(read)),
            ("image", CaptionRetriever(opened, 3).retrieve(captioned)),
        ):
            header = EvidenceHeader(retriever=name, query="post", k=3, corpus=opened.version, posts=len(read))
            save_evidence(folder / f"{name}.jsonl.zst", header, read, [r.evidence for r in rows])
        files = {"posts": str(posts), "evidence": {"text": "text.jsonl.zst", "image": "image.jsonl.zst"}}
        content = {
            "task": "ner",
            "output": "runs",
            "encoder": str(tiny_encoder_folder),
            "adapter": {"rank": 4, "alpha": 8},
            "data": {"train": files, "validation": files, "test": files},
            "experts": [
                {"name": "baseline"},
                {
                    "name": "text",
                    "start_from": "baseline",
                    "view": {"retriever": "text", "budget": 64, "form": "sentence"},
                },
                {"name": "image", "view": {"retriever": "image", "budget": 64, "form": "lead", "passage_limit": 20}},
            ],
            "training": {"epochs": 2, "batch_size": 4, "learning_rate": 5e-3, "precision": "fp32"},
            "mixture": ["text", "image"],
            "gate": {"folds": 2},
            **change,
        }
        path = folder / "tiny-ner.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture(scope="session")
def attached_recipe(tmp_path_factory: pytest.TempPathFactory, data: Path, tiny_encoder_folder: Path) -> Recipe:
    """A trained recipe whose experts read texts that come with posts, captions and knowledge, beside one without."""
    import torch
    import yaml
    from typer.testing import CliRunner

    from moreie.cli.app import app
    from moreie.datasets import read_posts
    from moreie.models.gate import Gate
    from moreie.training.recipe import load_recipe
    from moreie.training.run import seed_folder, train_recipe

    folder = tmp_path_factory.mktemp("attached")
    posts = data / "twitter2017-sample.txt"
    rows = [{"image_id": post.image_id, "caption": "people at a concert"} for post in read_posts(posts)[1:]]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copy(data / "pgim-sample.txt", folder / "knowledge.txt")
    for name, texts, title in (("caption", "captions.jsonl", "Image"), ("knowledge", "knowledge.txt", "")):
        command = ["attach", str(folder / texts), "--input", str(posts), "--name", name, "--title", title]
        assert CliRunner().invoke(app, [*command, "--save", str(folder / f"{name}.zst")]).exit_code == 0
    files = {"posts": str(posts), "evidence": {"caption": "caption.zst", "knowledge": "knowledge.zst"}}
    recipe = {
        "task": "ner",
        "output": "runs",
        "encoder": str(tiny_encoder_folder),
        "data": {"train": files, "validation": files},
        "experts": [
            {"name": "baseline"},
            {"name": "caption", "start_from": "baseline", "view": {"retriever": "caption", "budget": 128}},
            {"name": "knowledge", "start_from": "baseline", "view": {"retriever": "knowledge", "budget": 128}},
        ],
        "training": {"epochs": 1, "batch_size": 4, "precision": "fp32"},
        "gate": {"folds": 2},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    loaded = load_recipe(path)
    train_recipe(loaded)
    # So few posts teach a gate nothing: with weights of any kind each text changes the answer.
    gate = Gate.load(seed_folder(loaded, 1))
    torch.nn.init.normal_(gate.linear.weight, generator=torch.Generator().manual_seed(1))
    gate.save(seed_folder(loaded, 1))
    return loaded


@contextmanager
def running_milvus(folder: Path) -> Iterator[str]:
    """A Milvus server, spoken to over gRPC; it ends with the context."""
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed (it has no build for this platform)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("milvus-lite")), "server", "--data-dir", str(folder)]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert process.poll() is None, "the server ended at once"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    try:
        yield f"milvus://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def milvus_server() -> Callable[[Path], AbstractContextManager[str]]:
    """`with milvus_server(folder) as address:` runs a Milvus server that keeps its data in the folder."""
    return running_milvus
