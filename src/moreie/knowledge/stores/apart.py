"""A corpus folder read by a process of its own: while that imports the engine and opens the tables, which takes longer
than any query, this one can load a model."""

from __future__ import annotations

import signal
import weakref
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moreie.errors import KnowledgeCorpusError

if TYPE_CHECKING:
    from moreie.knowledge.stores.embedded import EmbeddedReader

# In the reading process: the corpus that it has opened.
_reader: EmbeddedReader | None = None


class ReadingProcess:
    """A process that imports the engine as soon as it is made, and ends with its maker."""

    def __init__(self) -> None:
        # Begun anew, not forked: a fork has the locks of threads that it has not.
        self.executor = ProcessPoolExecutor(1, get_context("spawn"), _leave_interrupts)
        self.executor.submit(_import)
        weakref.finalize(self, self.executor.shutdown, wait=False)


class ApartReader:
    """What `EmbeddedReader` answers (`rows.StoreReader`); what is wrong with tables is raised by the first question.

    For few questions: answers travel between the processes, those of `scan` all at once.
    """

    def __init__(self, process: ReadingProcess, folder: Path, tables: dict[str, int]):
        self._process, self._folder = process, folder
        self._opened = process.executor.submit(_open, folder, tables)

    def __getattr__(self, question: str) -> Callable[..., Any]:
        if question.startswith("_"):
            raise AttributeError(question)
        return partial(self._ask, question)

    def _ask(self, question: str, *about: Any, **how: Any) -> Any:
        try:
            self._opened.result()
            return self._process.executor.submit(_answer, question, about, how).result()
        except BrokenProcessPool as problem:
            raise KnowledgeCorpusError(
                f"{self._folder}: the process that reads it has died, perhaps for want of memory"
            ) from problem


def _leave_interrupts() -> None:
    """Ctrl-C goes to both processes; what it means is said by the other."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _import() -> None:
    import moreie.knowledge.stores.embedded  # noqa: F401


def _open(folder: Path, tables: dict[str, int]) -> None:
    global _reader
    from moreie.knowledge.stores.embedded import EmbeddedReader

    _reader = EmbeddedReader(folder, tables)


def _answer(question: str, about: tuple[Any, ...], how: dict[str, Any]) -> Any:
    answer = getattr(_reader, question)(*about, **how)
    return list(answer) if question == "scan" else answer
