"""A recipe over a few posts and a tiny encoder, with evidence from the small corpus."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from moreie.datasets import read_posts
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.retrieval.cache import EvidenceHeader, save_evidence
from moreie.retrieval.text import CaptionRetriever, TextRetriever


@pytest.fixture(scope="session")
def recipe_file(tiny_encoder_folder: Path, data: Path, small_corpus: Path) -> Callable[..., Path]:
    """`recipe_file(folder, **change)` writes a recipe and its evidence into a folder and returns its path."""

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
def train_until_killed() -> Callable[[Path, Path], list[str]]:
    """`train_until_killed(recipe, folder)` kills `moreie train` behind its first checkpoint under `folder`.

    Returns the command, to be given again.
    """

    def run(recipe: Path, folder: Path) -> list[str]:
        command = [sys.executable, "-m", "moreie", "train", str(recipe)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 240
        while not any(folder.glob("checkpoint-*/trainer_state.json")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return command

    return run
