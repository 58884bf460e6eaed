"""What to do with a bundle, in commands that can be pasted: the last lines of a build."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import NamedTuple

from edgeformer.bundle.files import ENGINE, TYPED
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
            *_run(bundle, manifest, f"TensorRT runs it on a machine with an {gpu}, ONNX Runtime on any other"),
        ]
    return [
        NextStep(verify, "compare all forms of the model again"),
        NextStep(shlex.join(["scp", "-r", str(bundle), f"{manifest.target.name}:"]), f"copy it to the {gpu}'s machine"),
        NextStep(_python(_build_engine(Path(bundle.name), manifest)), "there, build the engine"),
        *_run(bundle, manifest, "ONNX Runtime runs it"),
    ]


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


def _build_engine(bundle: Path, manifest: Manifest) -> str:
    batch = ":".join(map(str, manifest.batch or [1, 1, 1]))
    typed, engine = str(bundle / TYPED), str(bundle / ENGINE)
    return (
        "import edgeformer as ef; from edgeformer.engine.builder import BatchProfile, write_engine; "
        f"write_engine(ef.build_engine(ef.load_model({json.dumps(typed)}), "
        f"target=ef.get_target({json.dumps(manifest.target.name)}), "
        f"batch=BatchProfile.parse({json.dumps(batch)})), {json.dumps(engine)})"
    )
