"""Which tests `--quick` takes, and signals as a terminal gives them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Rooms whose tests export whole models, build engines, or start programs.
WHOLE = {"benchmarks", "cli", "engine", "examples", "export", "pipeline", "plugins"}


# A build for a device would compile the libraries for it, for minutes.
os.environ.setdefault("EDGEFORMER_CROSS_COMPILE", "0")
# Whoever ran the tests with nohup or in the background had these ignored, and what is ignored stays so in programs that
# the tests start.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick",
        action="store_true",
        help="no test that is slow or needs a whole model, engine or program, and of the others' cases the first",
    )


def is_quick(item: pytest.Item) -> bool:
    """Whether neither the test's room nor a marker says that it takes long."""
    room = item.path.relative_to(TESTS).parts[0]
    return room not in WHOLE and not any(item.get_closest_marker(name) for name in ("slow", "whole"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--quick"):
        return
    first: dict[str, pytest.Item] = {}
    for item in filter(is_quick, items):
        first.setdefault(item.nodeid.partition("[")[0], item)
    chosen = set(first.values())
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = first.values()
