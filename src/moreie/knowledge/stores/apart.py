"""A corpus folder read by a process of its own: while that imports the engine and opens the tables, which takes longer
than any query, this one can load a model."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Any

from moreie.errors import KnowledgeCorpusError
from moreie.knowledge.stores import in_cluster
from moreie.knowledge.workers import available_cores


class ReadingProcess:
    """A process that imports the engine as soon as it is made, then reads one corpus; it ends with its maker, however
    that ends."""

    def __init__(self) -> None:
        context = get_context("spawn")  # a fork would have the locks of threads that it has not
        self._questions, there = context.Pipe()
        self.process = context.Process(target=_read, args=(there,), daemon=True)
        self.process.start()
        there.close()

    def put(self, *question: Any) -> None:
        """Ask without waiting: every question has its `answer`, in their order.

        Raises:
            KnowledgeCorpusError: the process has died.
        """
        try:
            self._questions.send(question)
        except OSError as problem:
            raise self._death() from problem

    def answer(self) -> Any:
        """Raises what the question has raised there, and `KnowledgeCorpusError` where the process has died."""
        try:
            found, answer = self._questions.recv()
        except (EOFError, OSError) as problem:
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


def _read(questions: Connection) -> None:
    """Answer questions until nobody is left who asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to both processes; what it means is said by the other
    from moreie.knowledge.stores.embedded import EmbeddedReader

    reader: EmbeddedReader | None = None
    answer: Any
    while True:
        try:
            question, *about = questions.recv()
        except (EOFError, OSError):  # a maker that ended with answers unread resets the connection
            return
        try:
            if question == "open":
                answer, reader = None, EmbeddedReader(*about)
            elif reader is None:
                raise KnowledgeCorpusError("the corpus could not be opened")
            else:
                answer = getattr(reader, question)(*about[0], **about[1])
            said = True, list(answer) if question == "scan" else answer
        except Exception as problem:  # whatever it is, it is raised where the question was asked
            said = False, problem if _travels(problem) else KnowledgeCorpusError(f"{type(problem).__name__}: {problem}")
        try:
            questions.send(said)
        except OSError:
            return


def _travels(problem: Exception) -> bool:
    try:
        return type(pickle.loads(pickle.dumps(problem))) is type(problem)
    except (pickle.PickleError, TypeError, AttributeError):
        return False
