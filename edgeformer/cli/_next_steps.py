"""What to do with a bundle, in commands that can be pasted: the last lines of a build."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import NamedTuple

from edgeformer.bundle import Manifest
from edgeformer.bundle.files import ENGINE, TYPED
from edgeformer.ops.library_files import LIBRARY_NAME

__all__ = ["NextStep", "next_steps"]


class NextStep(NamedTuple):
    """A command and what it is for."""

    command: str
    purpose: str


def next_steps(bundle: Path, manifest: Manifest) -> list[NextStep]:
    """The commands, in their order."""
    verify = shlex.join(["edgeformer", "verify", str(bundle)])
    gpu = f"SM {', '.join(map(str, manifest.target.sms))} GPU"
    if ENGINE in manifest.files:
        verify += " --trust-bundle"
        return [
            NextStep(verify, f"compare all forms of the model again; on a machine with an {gpu} the engine runs, too"),
            NextStep(_python(_run_engine(bundle, manifest)), f"open the engine on a machine with an {gpu}"),
        ]
    return [
        NextStep(verify, "compare all forms of the model again"),
        NextStep(shlex.join(["scp", "-r", str(bundle), f"{manifest.target.name}:"]), f"copy it to the {gpu}'s machine"),
        NextStep(_python(_build_engine(Path(bundle.name), manifest)), "there, build the engine"),
    ]


def _python(code: str) -> str:
    """A command that runs ``code``; its strings are in double quotes, so that the shell's single ones can stay."""
    return shlex.join(["python3", "-c", code])


def _run_engine(bundle: Path, manifest: Manifest) -> str:
    files = [str(bundle / ENGINE)]
    if LIBRARY_NAME in manifest.files:
        files.append(str(bundle / LIBRARY_NAME))
    words = ", ".join(map(json.dumps, files))
    return f"from edgeformer.runtime import EngineSession; print(EngineSession({words}, trust_bundle=True).inputs)"


def _build_engine(bundle: Path, manifest: Manifest) -> str:
    batch = ":".join(map(str, manifest.batch or [1, 1, 1]))
    typed, engine = str(bundle / TYPED), str(bundle / ENGINE)
    return (
        "import edgeformer as ef; from edgeformer.engine.builder import BatchProfile, write_engine; "
        f"write_engine(ef.build_engine(ef.load_model({json.dumps(typed)}), "
        f"target=ef.get_target({json.dumps(manifest.target.name)}), "
        f"batch=BatchProfile.parse({json.dumps(batch)})), {json.dumps(engine)})"
    )
