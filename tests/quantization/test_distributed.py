from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeformer.errors import EnvironmentFault, InputError
from edgeformer.quantization import distributed
from edgeformer.quantization.distributed import Pool, open_pool
from edgeformer.quantization.distributed_observation import observe_on
from edgeformer.quantization.layer_sensitivity import measure_layers
from edgeformer.quantization.observation import observe
from edgeformer.quantization.recipe import ObserverSettings, Recipe
from edgeformer.version import __version__
from tests.graph.precision_graphs import transformer
from tests.quantization.conftest import ArraySamples
from tests.quantization.test_distributed_observation import SITES
from tests.raising import raises


@pytest.mark.parametrize(
    "where",
    ["0", "-1", "two", "", "1.5", "99999", "http://host:1", "tcp://", "tcp://host", "tcp://host:x", "host:8786"],
)
def test_other_words_than_a_number_or_an_address_are_refused(where: str) -> None:
    with raises("EF101", repr(where), "tcp://host:port"), open_pool(where):
        pass


def test_without_dask_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with raises("EF601", "pip install 'edgeformer[distributed]'"), open_pool("2"):
        pass


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_a_scheduler_that_is_not_there_is_told_within_seconds(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(distributed, "_TO_CONNECT", 1)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"{scheme}://127.0.0.1:{unused.getsockname()[1]}"
        begun = time.monotonic()
        with raises("EF565", address, "dask scheduler") as caught, open_pool(address):
            pass
    assert caught.value.exit_code == 4
    assert time.monotonic() - begun < 20  # other processes load the machine


class Client:
    """What a pool asks of a client, with workers that say what a test wants."""

    def __init__(self, versions: dict[str, Any] | Exception) -> None:
        self._versions = versions

    def nthreads(self) -> dict[str, int]:
        return {"a": 1, "b": 2}

    def run(self, function: Any) -> dict[str, Any]:
        assert function is distributed._versions
        if isinstance(self._versions, Exception):
            raise self._versions
        return self._versions


def check(versions: dict[str, Any] | Exception) -> None:
    client = Client(versions)
    pool = Pool(client, "tcp://host:1")
    assert pool.workers == 3
    distributed._check_versions(client, pool)


def test_workers_with_the_same_versions_are_taken() -> None:
    check({"a": distributed._versions(), "b": distributed._versions()})
    assert distributed._versions()["edgeformer"] == __version__
    assert distributed._versions()["numpy"] == np.__version__


@pytest.mark.parametrize("library", ["edgeformer", "onnxruntime"])
def test_a_worker_with_another_version_is_refused(library: str) -> None:
    own = distributed._versions()
    with raises("EF566", "tcp://host:1", "worker b", f"{library} 0.0.9 there, {own[library]} here"):
        check({"a": own, "b": own | {library: "0.0.9"}})


def test_a_worker_without_edgeformer_is_refused() -> None:
    with raises("EF566", "No module named 'edgeformer'"):
        check(ModuleNotFoundError("No module named 'edgeformer'"))


def test_a_worker_that_comes_later_with_another_version_does_no_task() -> None:
    other = distributed._versions() | {"edgeformer": "0.0.9"}
    kind, difference = distributed._run(lambda *_: pytest.fail("it ran"), other, None, ())
    assert kind == "versions"
    assert f"edgeformer {__version__} there, 0.0.9 here" in difference


class Ended:
    """A future that is done."""

    def __init__(self, outcome: Any) -> None:
        self._outcome = outcome

    def result(self) -> Any:
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome


def test_what_a_task_came_to_reaches_its_caller() -> None:
    dask = pytest.importorskip("distributed")
    pool = Pool(Client({}), "tcp://host:1")
    assert pool._result(Ended(("done", (1.0, 2.0)))) == (1.0, 2.0)
    with raises("EF508", "image 3"):
        pool._result(Ended(("fault", "InputError", "EF508", "image 3")))
    with pytest.raises(EnvironmentFault, match="too long"):
        pool._result(Ended(("fault", "EnvironmentFault", "EF881", "too long")))
    with raises("EF566", "numpy 1 there"):
        pool._result(Ended(("versions", "numpy 1 there, 2 here")))
    with raises("EF566", "edgeformer.x"):
        pool._result(Ended(ImportError("edgeformer.x")))
    with raises("EF565", "tcp://host:1", "lost"):
        pool._result(Ended(dask.CancelledError("lost")))
    with raises("EF567", "4 workers died", "memory"):
        pool._result(Ended(dask.KilledWorker("task", SimpleNamespace(address="w"), 3)))
    # A fault of ours stays one.
    with pytest.raises(ZeroDivisionError):
        pool._result(Ended(ZeroDivisionError()))


def test_an_error_of_ours_on_a_worker_is_told_in_words() -> None:
    def fails(shared: Any, number: int) -> None:
        raise InputError("EF508", f"{shared} {number}")

    assert distributed._run(fails, distributed._versions(), "at", (3,)) == ("fault", "InputError", "EF508", "at 3")


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """Two processes, which take seconds to start."""
    pytest.importorskip("distributed")
    with open_pool("2") as opened:
        yield opened


def images(count: int) -> ArraySamples:
    rng = np.random.default_rng(1)
    return ArraySamples(rng.normal(size=(count, 3, 16, 16)).astype(np.float32))


RECIPE = Recipe(name="plain", quantize_attention=True)


@pytest.mark.slow
def test_local_workers_are_reached_over_an_encrypted_connection_on_this_machine_alone(pool: Pool) -> None:
    addresses = list(pool._client.nthreads())
    assert len(addresses) == pool.workers == 2
    assert all(address.startswith("tls://127.0.0.1:") for address in addresses)


@pytest.mark.slow
def test_processes_observe_what_one_process_observes(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeformer.quantization import distributed_observation

    monkeypatch.setattr(distributed_observation, "_TASK_BYTES", 1)
    more: dict[str, Any] = {"observer": ObserverSettings(kind="mse"), "batch_size": 4}
    model = transformer()
    assert observe_on(pool, model, images(30), SITES, **more) == observe(model, images(30), SITES, **more)


@pytest.mark.slow
def test_an_error_on_a_worker_is_raised_here(pool: Pool) -> None:
    with raises("EF507", "[8, 3, 16, 20]"):
        observe_on(
            pool,
            transformer(),
            ArraySamples(np.zeros((8, 3, 16, 20), np.float32)),
            SITES,
            observer=ObserverSettings(),
            batch_size=8,
        )


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nothing(pool: Pool) -> None:
    expected = measure_layers(transformer(), images(12), recipe=RECIPE)
    killed: list[int] = []

    def kill_one(text: str, done: int, total: int | None) -> None:
        if text == "measuring layers" and done == 2:
            processes = pool._client.run(os.getpid)
            killed.append(next(iter(processes.values())))
            os.kill(killed[0], signal.SIGKILL)

    assert measure_layers(transformer(), images(12), recipe=RECIPE, pool=pool, progress=kill_one) == expected
    assert len(killed) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(killed[0], 0)
