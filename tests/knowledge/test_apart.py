"""A corpus read by a process of its own answers as one that is read here."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moreie.encoders.images import ImageEncoder
from moreie.errors import KnowledgeCorpusError
from moreie.knowledge.corpus import KnowledgeCorpus
from moreie.knowledge.stores.apart import ApartReader, ReadingProcess
from moreie.knowledge.stores.store import NAMES
from moreie.shipped import DEMO_CORPUS, IMAGE_ENCODER

QUERIES = ["Kawhi Leonard wins the fan vote", "", "zzzz qqqq"]


def process_of(corpus: KnowledgeCorpus) -> int:
    store: Any = corpus._store
    assert isinstance(store, ApartReader)
    pid = store._process.process.pid
    assert pid
    return int(pid)


@pytest.fixture(scope="module")
def corpora() -> tuple[KnowledgeCorpus, KnowledgeCorpus]:
    return KnowledgeCorpus.open_apart(DEMO_CORPUS), KnowledgeCorpus.open(DEMO_CORPUS)


def test_answers_are_the_same(corpora: tuple[KnowledgeCorpus, KnowledgeCorpus]) -> None:
    apart, here = corpora
    assert process_of(apart) != os.getpid()
    assert apart.version == here.version
    found = apart.search_sentences(QUERIES, 5)
    assert found == here.search_sentences(QUERIES, 5)
    assert found[0], "something is compared"
    picture = next((DEMO_CORPUS.parent / "pictures").glob("*.jpg"))
    encoder = ImageEncoder.from_pretrained(IMAGE_ENCODER, device="cpu")
    vectors, fingerprint = encoder.encode([picture]), encoder.fingerprint
    (pictured,) = apart.search_images(vectors, 3, encoder_fingerprint=fingerprint)
    assert [pictured] == here.search_images(vectors, 3, encoder_fingerprint=fingerprint)
    files = [passage.image for passage, _ in pictured if passage.image]
    assert apart.thumbnails(files) == here.thumbnails(files) != {}
    titles = [passage.title.lower() for passage, _ in found[0]]
    assert apart.named_keys(titles) == here.named_keys(titles)
    article = found[0][0][0].id.split("#")[0]
    assert apart.article(article) == here.article(article)
    tables = [[batch.to_pylist() for batch in corpus.scan(NAMES, ["name", "passage"])] for corpus in corpora]
    assert tables[0] == tables[1]


def test_what_is_wrong_there_is_raised_here(tmp_path: Path) -> None:
    with pytest.raises(KnowledgeCorpusError, match="no knowledge corpus there"):
        KnowledgeCorpus.open_apart(tmp_path / "nothing")
    folder = tmp_path / "corpus"
    shutil.copytree(DEMO_CORPUS, folder)
    apart = KnowledgeCorpus.open_apart(folder)
    with pytest.raises(KnowledgeCorpusError, match="embedded by"):
        apart.search_images(np.zeros((1, 384), np.float32), 1, encoder_fingerprint="another")
    shutil.rmtree(next(folder.glob("sentences.lance")))
    damaged = KnowledgeCorpus.open_apart(folder)
    with pytest.raises(KnowledgeCorpusError, match="is missing or damaged"):
        damaged.search_sentences(QUERIES, 5)


def test_the_death_of_the_process_is_said() -> None:
    apart = KnowledgeCorpus.open_apart(DEMO_CORPUS)
    assert apart.search_sentences(QUERIES, 1)[0]
    os.kill(process_of(apart), signal.SIGKILL)
    time.sleep(0.2)
    with pytest.raises(KnowledgeCorpusError, match="the process that reads the knowledge corpus has died"):
        apart.search_sentences(QUERIES, 1)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_the_process_ends_with_its_maker(end: signal.Signals, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import time\nfrom moreie.knowledge.stores.apart import ReadingProcess\n"
        "reading = ReadingProcess()\nprint(reading.process.pid, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout
        pid = int(maker.stdout.readline())
        os.kill(pid, 0)
        maker.send_signal(end)
    for _ in range(300):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            return  # ended; whoever has inherited it has not looked yet
        time.sleep(0.1)
    pytest.fail("it is still there")


def test_the_process_ends_when_nobody_can_ask_it_any_more() -> None:
    reading = ReadingProcess()
    process = reading.process
    assert process.poll() is None
    del reading
    gc.collect()
    assert process.returncode is not None


def test_what_a_library_prints_is_no_answer(tmp_path: Path) -> None:
    code = "import moreie.knowledge.stores.apart as apart, sys; sys.path[:] = sys.argv[1:]; apart.read()"
    noisy = tmp_path / "pyarrow.py"
    noisy.write_text("import os\nprint('how do you do', flush=True)\nos.write(1, b'raw\\n')\n", encoding="utf-8")
    command = [sys.executable, "-c", code, str(tmp_path), *sys.path]
    done = subprocess.run(command, input=b"", capture_output=True, check=False)
    assert done.stdout == b""
    assert b"how do you do" in done.stderr
    assert b"raw" in done.stderr


def test_the_command_leaves_nothing_behind_and_writes_all() -> None:
    command = [sys.executable, "-m", "moreie", "extract", "--json", "--text", "Kawhi Leonard wins the fan vote"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["mentions"]
    absent = subprocess.run([*command, "--image", "absent.jpg"], capture_output=True, text=True, check=False)
    assert absent.returncode == 0
    assert "no such picture" in absent.stdout + absent.stderr


def test_of_a_command_that_fails_only_the_error_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "moreie", "extract", "--text", "Obama", "--model", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no such folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_answers_that_nobody_reads_are_nobodys_trouble(tmp_path: Path) -> None:
    """The maker ends with an answer on its way."""
    code = (
        "from pathlib import Path\n"
        "from moreie.knowledge.stores.apart import ReadingProcess\n"
        "process = ReadingProcess()\n"
        f"process.put('open', Path({str(tmp_path)!r}), {{}})\n"
        "process._answers.peek(1)\n"
        "process.put('open', Path('none'), {})\n"
    )
    script = tmp_path / "maker.py"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
