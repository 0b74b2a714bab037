"""Where the parts of a build are worked on: processes of this machine, or a Ray cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, Protocol, TypeVar

from moreie.errors import KnowledgeCorpusError, MissingExtraError, MoreieError

log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")
# So many times processes may die before the build gives up; finished parts are kept in any case.
RESTARTS = 3


class Workers(Protocol):
    """Applies a function to items and keeps the results, in any order, few items waiting at a time."""

    def each(
        self, work: Callable[[T], R], keep: Callable[[T, R], None], items: Callable[[], Iterable[T]]
    ) -> Generator[T, None, None]:
        """Each item, once `keep(item, work(item))` has been done, as they are done.

        `keep` runs where the work does if that is this machine, else in this process. `items` gives what is still to
        be done; it is asked again when workers died.

        Raises:
            KnowledgeCorpusError: workers keep dying.
        """
        ...


@dataclass(frozen=True, slots=True)
class LocalWorkers:
    """`processes` of this machine; with one, or for a single item, this process does the work.

    Workers keep their results themselves and answer with numbers: an answer that fills the pipe, cut off by the
    worker's death, would be waited for without end.
    """

    processes: int

    def each(
        self, work: Callable[[T], R], keep: Callable[[T, R], None], items: Callable[[], Iterable[T]]
    ) -> Generator[T, None, None]:
        for attempt in range(RESTARTS + 1):
            waiting = iter(items())
            first = list(islice(waiting, 2))
            if self.processes == 1 or len(first) < 2:
                for item in chain(first, waiting):
                    keep(item, work(item))
                    yield item
                return
            from joblib import Parallel
            from joblib.externals.loky.process_executor import TerminatedWorkerError

            pool = Parallel(self.processes, return_as="generator_unordered", pre_dispatch="2*n_jobs", batch_size=1)
            given: dict[int, T] = {}
            try:
                with closing(pool(_calls(work, keep, chain(first, waiting), given))) as numbers:
                    for number in numbers:
                        yield given.pop(number)
                return
            except TerminatedWorkerError as problem:
                log.warning("a worker process died (attempt %d of %d): %s", attempt + 1, RESTARTS + 1, problem)
        raise KnowledgeCorpusError(
            f"worker processes died {RESTARTS + 1} times, perhaps for want of memory; run the same command again with "
            "fewer --workers: finished parts are kept"
        )


@dataclass(frozen=True, slots=True)
class RayWorkers:
    """Workers of a Ray cluster at `address`, or of one that is started here for the purpose (None).

    A worker that dies costs nothing but its item, which another one does again.
    """

    address: str | None = None

    def each(
        self, work: Callable[[T], R], keep: Callable[[T, R], None], items: Callable[[], Iterable[T]]
    ) -> Generator[T, None, None]:
        ray = self._connected()
        function, bound = (work.func, work.args) if isinstance(work, partial) else (work, ())
        task = ray.remote(max_retries=RESTARTS)(function)
        limit = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting = iter(items())
        pending: dict[Any, T] = {}
        while True:
            for item in islice(waiting, limit - len(pending)):
                pending[task.remote(*bound, item)] = item
            if not pending:
                return
            done, _ = ray.wait(list(pending), num_returns=1)
            for reference in done:
                item = pending.pop(reference)
                try:
                    keep(item, ray.get(reference))
                except ray.exceptions.RayTaskError as problem:
                    cause = problem.as_instanceof_cause()
                    raise cause if isinstance(cause, MoreieError) else problem from problem
                except ray.exceptions.WorkerCrashedError as problem:
                    raise KnowledgeCorpusError(
                        f"Ray workers died {RESTARTS + 1} times over one part, perhaps for want of memory; run the "
                        "same command again: finished parts are kept"
                    ) from problem
                yield item

    def _connected(self) -> Any:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ModuleNotFoundError as problem:
            raise MissingExtraError("ray", "building on Ray") from problem
        if not ray.is_initialized():
            try:
                ray.init(address=self.address, include_dashboard=False, log_to_driver=False)
            except (ConnectionError, OSError, ValueError) as problem:
                raise KnowledgeCorpusError(f"{self.address}: no Ray cluster answers there ({problem})") from problem
        return ray


def _calls(
    work: Callable[[T], R], keep: Callable[[T, R], None], items: Iterable[T], given: dict[int, T]
) -> Iterator[Any]:
    from joblib import delayed

    for number, item in enumerate(items):
        given[number] = item
        yield delayed(_done)(work, keep, item, number)


def _done(work: Callable[[T], R], keep: Callable[[T, R], None], item: T, number: int) -> int:
    keep(item, work(item))
    return number


def workers_of(name: str | None) -> Workers:
    """Workers by what `--workers` says: a number of processes, `ray`, or `ray://host:port` [all cores].

    Raises:
        KnowledgeCorpusError: none of these.
    """
    if name is None:
        return LocalWorkers(available_cores())
    if name == "ray":
        return RayWorkers()
    if name.startswith("ray://"):
        return RayWorkers(name)
    if name.isdigit() and int(name) > 0:
        return LocalWorkers(int(name))
    raise KnowledgeCorpusError(f"--workers {name}: expected a number of processes, ray, or ray://host:port")


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
