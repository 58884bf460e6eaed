"""Work on other processes and machines, by dask.distributed: the engine that people who have many machines run already.

A task is a function of edgeformer, by name, and plain arrays, bytes, numbers and names. It gives the same bits wherever
it runs, and depends on nothing but its arguments: one whose worker is killed runs again on another.

A dask scheduler and its workers run whatever is sent to them. That they belong to the user is the user's word.
"""

from __future__ import annotations

import importlib.metadata
import logging
import re
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from edgeformer.errors import EdgeformerError, EnvironmentFault, InputError
from edgeformer.runtime.onnx_session import session_threads
from edgeformer.text import shortened
from edgeformer.version import __version__

__all__ = ["Pool", "open_pool"]

# Seconds until a scheduler that does not answer is not there, and until one without workers has none.
_TO_CONNECT = 5
_TO_FIND_WORKERS = 10
# What the bits of a result depend on besides edgeformer.
_LIBRARIES = ("numpy", "onnx", "onnxruntime")
_ADDRESS = re.compile(r"(tcp|tls)://[^\s/]+:[0-9]{1,5}")


class Pool:
    """Workers that do tasks for this process; `open_pool` makes one.

    Attributes:
        workers: threads of all workers when it was opened.
    """

    def __init__(self, client: Any, where: str) -> None:
        self._client = client
        self._where = where
        self.workers = sum(client.nthreads().values())

    def results(
        self, function: Callable[..., Any], shared: Any, tasks: Iterable[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any]]:
        """The results of ``function(shared, *task)`` and the tasks' numbers from 0 on, in the order in which they end.

        A task whose worker goes away runs again on another. ``tasks`` are taken as workers become free, so that no more
        than a few of them are in memory.

        Args:
            function: of a module of edgeformer.
            shared: what all tasks need; it goes to each worker once.
            tasks: the further arguments of each.

        Raises:
            EdgeformerError: what a task raised.
            EnvironmentFault: the scheduler is gone, a worker has other versions, or one task ended worker after worker.
        """
        from distributed import as_completed

        with warnings.catch_warnings():
            # Data that is scattered is lost with the workers that hold it; an argument is sent again.
            warnings.filterwarnings("ignore", "Sending large graph")
            holder = self._client.submit(_same, shared, key=f"edgeformer-{uuid.uuid4()}", pure=False)
        numbers: dict[Any, int] = {}
        source = iter(enumerate(tasks))
        running = as_completed(loop=self._client.loop)

        def start() -> None:
            number, arguments = next(source, (None, ()))
            if number is not None:
                future = self._client.submit(_run, function, _versions(), holder, arguments, pure=False)
                numbers[future] = number
                running.add(future)

        for _ in range(2 * max(self.workers, 1)):
            start()
        for future in running:
            result = self._result(future)
            start()
            yield numbers.pop(future), result

    def _result(self, future: Any) -> Any:
        from distributed import CancelledError, KilledWorker

        try:
            kind, *result = future.result()
        except KilledWorker as error:
            raise EnvironmentFault(
                "EF567",
                f"{self._where}: {error.allowed_failures + 1} workers died one after the other at the same task, as "
                "they do when memory runs out: give fewer workers on each machine, or fewer images",
            ) from error
        except (CancelledError, OSError) as error:
            raise EnvironmentFault(
                "EF565", f"{self._where}: the connection to the scheduler was lost ({shortened(error, 200)})"
            ) from error
        except ImportError as error:
            raise _versions_differ(self._where, str(error)) from error
        if kind == "versions":
            raise _versions_differ(self._where, result[0])
        if kind == "fault":
            name, code, message = result
            raise (EnvironmentFault if name == "EnvironmentFault" else InputError)(code, message)
        return result[0]


@contextmanager
def open_pool(where: str) -> Iterator[Pool]:
    """Workers: so many processes on this machine, one thread each, or those of a scheduler that runs.

    The processes here are reached over an encrypted connection whose key nobody else has.

    Args:
        where: a number, or ``tcp://host:port``, or ``tls://host:port`` with the certificates of dask's configuration.

    Raises:
        InputError: ``where`` is neither.
        EnvironmentFault: dask.distributed is not installed; no scheduler answers there, it has no workers, or they have
            other versions than this process.
    """
    count = int(where) if re.fullmatch(r"[0-9]{1,4}", where) else None
    if count == 0 or (count is None and not _ADDRESS.fullmatch(where)):
        raise InputError(
            "EF101",
            f"workers {shortened(repr(where))}: it must be a number of processes, at least 1, or the address of a dask "
            "scheduler: tcp://host:port or tls://host:port",
        )
    try:
        from distributed import Client, LocalCluster, Security
    except ImportError as error:
        raise EnvironmentFault(
            "EF601", f"--workers needs dask.distributed ({error}): pip install 'edgeformer[distributed]'"
        ) from error
    # What goes wrong is told in the errors raised here.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        if count is not None:
            cluster = LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address=None,
                memory_limit=0,
                security=Security.temporary(),
                silence_logs=logging.CRITICAL,
            )
            client = stack.enter_context(Client(stack.enter_context(cluster), set_as_default=False))
        else:
            client = stack.enter_context(_connected(Client, where))
        pool = Pool(client, where if count is None else f"{count} local workers")
        _check_versions(client, pool)
        yield pool


def _connected(client_class: Any, address: str) -> Any:
    try:
        client = client_class(address, timeout=_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise EnvironmentFault(
            "EF565",
            f"{address}: no dask scheduler answers there within {_TO_CONNECT} s ({shortened(error, 200)}): start one "
            "with 'dask scheduler', and workers with 'dask worker ADDRESS', or give a number of workers to start here",
        ) from error
    try:
        client.wait_for_workers(1, timeout=_TO_FIND_WORKERS)
    except (OSError, TimeoutError) as error:
        client.close()
        raise EnvironmentFault(
            "EF565", f"{address}: the scheduler has no workers: start some with 'dask worker {address} --nthreads 1'"
        ) from error
    return client


def _check_versions(client: Any, pool: Pool) -> None:
    here = _versions()
    try:
        there = client.run(_versions)
    except (ImportError, AttributeError) as error:  # no edgeformer there, or one without this module
        raise _versions_differ(pool._where, str(error)) from error
    for worker, versions in there.items():
        if versions != here:
            raise _versions_differ(f"{pool._where}, worker {worker}", _difference(versions, here))


def _versions_differ(where: str, difference: str) -> EnvironmentFault:
    return EnvironmentFault(
        "EF566",
        f"{where}: a worker has not what this process has: {shortened(difference, 300)}. Results would differ: install "
        "the same versions there",
    )


def _difference(there: dict[str, str], here: dict[str, str]) -> str:
    differing = [name for name in here if there.get(name) != here[name]]
    return "; ".join(f"{name} {there.get(name)} there, {here[name]} here" for name in differing)


def _versions() -> dict[str, str]:
    found = {"edgeformer": __version__}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # installed under another name
            found[name] = "unknown"
    return found


def _same(shared: Any) -> Any:
    """On a worker: what all tasks share."""
    return shared


def _run(function: Callable[..., Any], versions: dict[str, str], shared: Any, arguments: tuple[Any, ...]) -> Any:
    """On a worker: do a task; its result, or its error in words, since not every exception survives the way."""
    own = _versions()
    if own != versions:
        return "versions", _difference(own, versions)
    try:
        with session_threads(1):
            return "done", function(shared, *arguments)
    except EdgeformerError as error:
        return "fault", type(error).__name__, error.code, str(error)
