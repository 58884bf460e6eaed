"""What to do with a bundle, in commands that can be pasted: the last lines of a build."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import NamedTuple

from edgeformer.bundle.details import LatencyDetails
from edgeformer.bundle.files import ENGINE, FINISH
from edgeformer.bundle.manifest import Manifest

__all__ = ["NextStep", "next_steps"]


class NextStep(NamedTuple):
    """A command and what it is for."""

    command: str
    purpose: str


def next_steps(bundle: Path, manifest: Manifest) -> list[NextStep]:
    """The commands, in their order; those that run the bundle are the last."""
    verify = shlex.join(["edgeformer", "verify", str(bundle)])
    gpu = f"SM {', '.join(map(str, manifest.target.sms))} GPU"
    if ENGINE in manifest.files:
        verify += " --trust-bundle"
        return [
            NextStep(verify, f"compare all forms of the model again; on a machine with an {gpu} the engine runs, too"),
            *_bench(bundle, manifest, gpu),
            *_run(bundle, manifest, f"TensorRT runs it on a machine with an {gpu}, ONNX Runtime on any other"),
        ]
    return [
        NextStep(verify, "compare all forms of the model again"),
        NextStep(shlex.join(["scp", "-r", str(bundle), f"{manifest.target.name}:"]), f"copy it to the {gpu}'s machine"),
        NextStep(_finish(Path(bundle.name), manifest), "there, build the engine, compare its outputs and time it"),
        *_run(bundle, manifest, "ONNX Runtime runs it"),
    ]


def _bench(bundle: Path, manifest: Manifest, gpu: str) -> list[NextStep]:
    """What tells its latency, where that is not known yet."""
    if manifest.details(LatencyDetails) is not None:
        return []
    command = shlex.join(["edgeformer", "bench", str(bundle), "--trust-bundle"])
    return [NextStep(command, f"time it: on a machine with an {gpu} the engine, on any other ONNX Runtime")]


def _python(code: str) -> str:
    """A command that runs ``code``; its strings are in double quotes, so that the shell's single ones can stay."""
    return shlex.join(["python3", "-c", code])


def _run(bundle: Path, manifest: Manifest, by: str) -> list[NextStep]:
    """From the command line, where that has something to show, and from a program."""
    trusted = ENGINE in manifest.files
    load = f"import edgeformer as ef; model = ef.load({json.dumps(str(bundle))}{', trust_bundle=True' * trusted})"
    application = manifest.application
    if application.task != "classification" or application.image is None:
        return [NextStep(_python(f"{load}; print(model.describe())"), f"load it in a program; {by}")]
    run = ["edgeformer", "run", str(bundle), "IMAGE", *["--trust-bundle"] * trusted]
    return [
        NextStep(shlex.join(run), f"classify an image; {by}"),
        NextStep(_python(f'{load}; print(model.predict("IMAGE"))'), "the same in a program"),
    ]


def _finish(bundle: Path, manifest: Manifest) -> str:
    if FINISH in manifest.files:
        return shlex.join([str(bundle / FINISH)])
    return shlex.join(["edgeformer", "finish", str(bundle), "--trust-bundle"])
