"""A corpus folder read by a process of its own: while that imports the engine and opens the tables, which takes longer
than any query, this one can load a model."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Lock
from typing import IO, TYPE_CHECKING, Any, cast

from moreie.errors import KnowledgeCorpusError
from moreie.knowledge.stores import in_cluster
from moreie.knowledge.workers import available_cores
from moreie.starting import uncollected, without

if TYPE_CHECKING:
    from moreie.knowledge.stores.embedded import EmbeddedReader

# Not by `multiprocessing`: it would import there what the maker's program imports, a command's options for example.
# Ctrl-C goes to both processes; what it means is said by the other.
START = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.path[:] = sys.argv[1:]
from {__name__} import read
read()
"""


class ReadingProcess:
    """A process that imports the engine as soon as it is made, then reads one corpus; it ends with its maker, however
    that ends."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"OPENBLAS_NUM_THREADS": "1", **os.environ},  # NumPy's threads would wait busily for work
        )
        self._questions = cast(IO[bytes], self.process.stdin)
        self._answers = cast(IO[bytes], self.process.stdout)
        weakref.finalize(self, _end, self.process)

    def put(self, *question: Any) -> None:
        """Ask without waiting: every question has its `answer`, in their order.

        Raises:
            KnowledgeCorpusError: the process has died.
        """
        try:
            pickle.dump(question, self._questions, pickle.HIGHEST_PROTOCOL)
            self._questions.flush()
        except OSError as problem:
            raise self._death() from problem

    def answer(self) -> Any:
        """Raises what the question has raised there, and `KnowledgeCorpusError` where the process has died."""
        try:
            found, answer = pickle.load(self._answers)
        except (EOFError, OSError, pickle.UnpicklingError) as problem:
            raise self._death() from problem
        if not found:
            raise answer
        return answer

    @staticmethod
    def _death() -> KnowledgeCorpusError:
        return KnowledgeCorpusError("the process that reads the knowledge corpus has died, perhaps for want of memory")


def begun(location: str | Path) -> ReadingProcess | None:
    """A process that will read a corpus; None where there is no core for it, or the corpus is in a cluster."""
    return None if in_cluster(location) or available_cores() < 2 else ReadingProcess()


class ApartReader:
    """What `EmbeddedReader` answers (`store.StoreReader`); what is wrong with tables is raised by the first question.

    For few questions: answers travel between the processes, those of `scan` all at once.
    """

    def __init__(self, process: ReadingProcess, folder: Path, tables: dict[str, int]):
        """`process`: one that reads no corpus yet."""
        self._process, self._lock = process, Lock()
        self._waiting = True
        process.put("open", folder, tables)

    def __getattr__(self, question: str) -> Callable[..., Any]:
        if question.startswith("_"):
            raise AttributeError(question)
        return partial(self._ask, question)

    def _ask(self, question: str, *about: Any, **how: Any) -> Any:
        with self._lock:
            if self._waiting:
                self._waiting = False
                self._process.answer()
            self._process.put(question, about, how)
            return self._process.answer()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        try:
            if pipe is not None:
                pipe.close()
        except OSError:  # a question was on its way
            pass
    process.wait()


def read() -> None:
    """Answer the questions that come in until nobody is left who asks."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
        # Arrow looks for pandas, which takes a quarter of the time that the engine does and is nothing to this process.
        with without(("pandas",)), uncollected():
            from moreie.knowledge.stores.embedded import EmbeddedReader
        try:
            _answer_all(EmbeddedReader, sys.stdin.buffer, answers)
        except (EOFError, OSError, pickle.UnpicklingError):  # a maker that ended in the middle of it
            os._exit(0)


def _answer_all(opened: type[EmbeddedReader], questions: IO[bytes], answers: IO[bytes]) -> None:
    reader: EmbeddedReader | None = None
    answer: Any
    while True:
        question, *about = pickle.load(questions)
        try:
            if question == "open":
                answer, reader = None, opened(*about)
            elif reader is None:
                raise KnowledgeCorpusError("the corpus could not be opened")
            else:
                answer = getattr(reader, question)(*about[0], **about[1])
            said = True, list(answer) if question == "scan" else answer
        except Exception as problem:  # whatever it is, it is raised where the question was asked
            said = False, problem if _travels(problem) else KnowledgeCorpusError(f"{type(problem).__name__}: {problem}")
        pickle.dump(said, answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()


def _travels(problem: Exception) -> bool:
    try:
        return type(pickle.loads(pickle.dumps(problem))) is type(problem)
    except (pickle.PickleError, TypeError, AttributeError):
        return False
