#!/usr/bin/env python3
"""Kill `edgeformer finish` at random moments: the bundle stays whole, and the next call finishes it.

    benchmarks/kill_finish.py [--kills 50] [--seed 0] [--autotune]

A bundle for an RTX GPU is built from BiFormer-nano with random weights, and its engine is taken out again, so that
finishing it builds an engine for real, which TensorRT-RTX does without a GPU. Each time all processes of a call are
killed (SIGKILL) at a moment drawn from the time that the whole call before took; then every file is checked against the
manifest, and the call is made again to its end. Ends with 1 where a bundle was not whole or was not finished.

With ``--autotune`` the bundle is the trained BiFormer-nano's in INT8, and the call builds an engine of each of its
three candidates. Comparing and timing them needs a GPU, which is pretended (`benchmarks.pretended_gpu`).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from edgeformer.bundle import StageRecord, open_bundle, read_manifest
from edgeformer.bundle.details import EngineDetails
from edgeformer.bundle.files import CANDIDATE, ENGINE, MANIFEST

__all__ = [
    "AUTOTUNE",
    "FINISH",
    "kill_and_finish",
    "main",
    "quick_recipe",
    "tunable_bundle",
    "unfinished_bundle",
    "without_engine",
]

ROOT = Path(__file__).resolve().parents[1]
FINISH = (sys.executable, "-m", "edgeformer", "finish", "--trust-bundle")
AUTOTUNE = (sys.executable, "-m", "benchmarks.pretended_gpu", "finish", "--trust-bundle", "--autotune")


def unfinished_bundle(folder: Path) -> Path:
    """A bundle for an RTX GPU, in ``folder``, whose engine is still to be built."""
    from edgeformer.pipeline import build, export_model

    model = folder / "nano.onnx"
    export_model("biformer_nano", output=model, random_weights=True)
    bundle = folder / "unfinished"
    build(model, output=bundle, target="rtx-40", compare_plugin=False)
    without_engine(bundle)
    return bundle


def tunable_bundle(folder: Path) -> Path:
    """An INT8 bundle for an RTX GPU, in ``folder``, with three candidates, whose engine is still to be built."""
    from edgeformer.pipeline import build

    bundle = folder / "unfinished"
    build(
        "biformer_nano",
        recipe=quick_recipe(folder),
        checkpoint=ROOT / "checkpoints" / "biformer_nano_digits" / "model.safetensors",
        output=bundle,
        target="rtx-40",
        precision="int8",
        data=ROOT / "calibration" / "digits" / "calibrate",
        calibration_images=16,
        autotune_candidates=True,
        compare_plugin=False,
    )
    without_engine(bundle)
    return bundle


def quick_recipe(folder: Path) -> Path:
    """A recipe file in ``folder`` that leaves out what takes long, and quantizes the attention."""
    steps = ("balance", "choose_ranges", "round_weights", "correct_bias")
    recipe = {"schema_version": 1, "name": "quick", "observer": {"kind": "min_max"}, "quantize_attention": True}
    path = folder / "recipe.json"
    path.write_text(json.dumps(recipe | dict.fromkeys(steps, False)), encoding="utf-8")
    return path


def without_engine(bundle: Path) -> None:
    """Make of a bundle for an RTX GPU what a machine without TensorRT-RTX would have made."""
    manifest = read_manifest(bundle)
    details = manifest.details(EngineDetails)
    assert details is not None
    record = StageRecord(name="engine", key="", seconds=0, verdict="not run", details=EngineDetails(spec=details.spec))
    stages = [record if stage.name == "engine" else stage for stage in manifest.stages]
    files = {name: file for name, file in manifest.files.items() if not name.startswith(ENGINE)}
    changed = manifest.model_copy(update={"stages": stages, "files": files})
    (bundle / MANIFEST).write_text(changed.model_dump_json(indent=2), encoding="utf-8")
    for path in bundle.glob(f"{ENGINE}*"):
        path.unlink()


def kill_and_finish(
    unfinished: Path, folder: Path, seconds: float, call: Sequence[str] | None = None
) -> tuple[str, float]:
    """Copy a bundle, finish it, kill that after some seconds, check the bundle, and finish it.

    Args:
        unfinished: the bundle.
        folder: an empty one, for the copy.
        seconds: when to kill.
        call: the command, without the bundle; None for `FINISH`.

    Returns:
        How far the killed call had come (``nothing``, ``built`` or ``finished``; with ``--autotune`` ``1 built`` and so
        on), and the seconds that the next took.

    Raises:
        InputError: the bundle is damaged.
        RuntimeError: it was not finished afterwards, or something was left beside it.
    """
    command = [*(FINISH if call is None else call), str(folder / "bundle")]
    bundle = folder / "bundle"
    shutil.copytree(unfinished, bundle)
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd=ROOT
    )
    time.sleep(seconds)
    with suppress(ProcessLookupError):  # it was done
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    state = _state(open_bundle(bundle).files)
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    took = time.monotonic() - begun
    if done.returncode != 0:
        raise RuntimeError(f"killed after {seconds:.2f} s, it ended with {done.returncode}:\n{done.stderr}")
    left = open_bundle(bundle).files
    if ENGINE not in left:
        raise RuntimeError(f"killed after {seconds:.2f} s, the bundle has no engine in the end")
    if more := [name for name in left if ".engine" in name and not name.startswith(ENGINE)]:
        raise RuntimeError(f"killed after {seconds:.2f} s, the bundle has {', '.join(more)} in the end")
    if beside := [path.name for path in folder.iterdir() if path != bundle]:
        raise RuntimeError(f"killed after {seconds:.2f} s, this was left beside the bundle: {', '.join(beside)}")
    return state, took


def _state(files: Collection[str]) -> str:
    """How far a call had come, by the files of the bundle."""
    if ENGINE in files:
        return "finished"
    tuned = sum(name.startswith("autotune-") and name.endswith(".engine") for name in files)
    return f"{tuned} built" if tuned else "built" if CANDIDATE in files else "nothing"


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill and finish, and say how it went."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="how often")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--autotune", action="store_true", help="kill finish --autotune")
    options = parser.parse_args(arguments)
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as named:
        folder = Path(named)
        unfinished = tunable_bundle(folder) if options.autotune else unfinished_bundle(folder)
        call = AUTOTUNE if options.autotune else FINISH
        (folder / "whole").mkdir()
        _, whole = kill_and_finish(unfinished, folder / "whole", 0.0, call)
        wholes = [whole]
        states: Counter[str] = Counter()
        for number in range(options.kills):
            place = folder / str(number)
            place.mkdir()
            try:
                state, took = kill_and_finish(unfinished, place, moments.uniform(0.0, wholes[-1]), call)
                states[state] += 1
                if state == "nothing":  # else there was less to do
                    wholes.append(took)
            except Exception as error:
                print(f"kill {number}: {error}", file=sys.stderr)
                states["failed"] += 1
            shutil.rmtree(place)
    told = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    calls = f"{min(wholes):.1f} to {max(wholes):.1f} s"
    print(f"{options.kills} kills in calls of {calls}: when killed {told}; {states['failed']} failed")
    return 1 if states["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
