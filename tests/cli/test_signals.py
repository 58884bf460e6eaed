"""Ctrl-C, SIGTERM and SIGHUP at any moment of a build: its exit code in time, and either a bundle or nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeformer.bundle import open_bundle
from edgeformer.pipeline import export_model
from tests.engine.conftest import processes_naming

MOMENTS = 40
FEW = range(4, MOMENTS, 9)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Seconds from a signal to the end of the process.
LIMIT = 2.0


@dataclass(frozen=True)
class Measured:
    """How fast this machine is at the moment.

    Attributes:
        build: seconds that a whole build takes.
        allowance: seconds to add to the limit: other programs may have the processor, and then to start and end an
            interpreter takes longer than the 0.1 s it takes else.
    """

    build: float
    allowance: float


class Build:
    """A build in a folder of its own, which is also its TMPDIR's parent."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.folder = folder
        self.bundle = folder / "out" / "bundle"
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True)
        words = ["build", str(model), "--target", "rtx-30", "--no-compare-plugin", "-o", str(self.bundle)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edgeformer", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(self.temporary)},
            start_new_session=True,
            # Whoever starts the tests may have it ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        # Until an interpreter has begun with our code, a signal ends it as it ends any Python program.
        while self.process.poll() is None and not self._works():
            time.sleep(0.002)
        self.begun = time.monotonic()

    def _works(self) -> bool:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return bool(children.read_text()) if children.exists() else len(processes_naming(self.folder)) > 1

    def end(self) -> tuple[int, str]:
        """Exit code and standard error."""
        _, errors = self.process.communicate(timeout=120)
        return self.process.returncode, errors


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    export_model("biformer_nano", output=path, random_weights=True, overrides={"depths": (1, 1, 1, 1)})
    return path


@pytest.fixture(scope="module")
def measured(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", "import numpy"], check=True)
    interpreter = time.monotonic() - begun
    build = Build(model, tmp_path_factory.mktemp("whole"))
    code, errors = build.end()
    assert code == 0, errors
    return Measured(time.monotonic() - build.begun, max(0.0, 10 * (interpreter - 0.3)))


def check(build: Build, number: signal.Signals, delay: float, measured: Measured) -> None:
    time.sleep(max(0.0, build.begun + delay - time.monotonic()))
    sent = time.monotonic()
    build.process.send_signal(number)
    code, errors = build.end()
    took = time.monotonic() - sent
    where = f"{number.name} after {delay:.2f} of {measured.build:.2f} s: code {code} after {took:.2f} s\n{errors}"
    assert took < LIMIT + measured.allowance, where
    assert "Traceback" not in errors, where
    assert "ignored" not in errors, where
    if build.bundle.exists():
        assert code == 0, where
        open_bundle(build.bundle)
    else:
        assert code == 128 + number, where
        assert errors.endswith("; nothing was left behind\n"), where
    assert [path.name for path in build.bundle.parent.glob("*")] == ["bundle"] * build.bundle.exists(), where
    # What begins with a dot is ONNX Runtime's own.
    assert [path.name for path in build.temporary.glob("[!.]*")] == [], where
    assert processes_naming(build.folder) == [], where


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("moment", FEW)
def test_a_signal_ends_a_build_in_time(model: Path, measured: Measured, folders: Path, moment: int) -> None:
    build = Build(model, folders)
    check(build, SIGNALS[moment % len(SIGNALS)], measured.build * moment / MOMENTS, measured)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [moment for moment in range(MOMENTS) if moment not in FEW])
def test_a_signal_ends_a_build_in_time_at_every_moment(
    model: Path, measured: Measured, folders: Path, moment: int
) -> None:
    build = Build(model, folders)
    check(build, SIGNALS[moment % len(SIGNALS)], measured.build * moment / MOMENTS, measured)
