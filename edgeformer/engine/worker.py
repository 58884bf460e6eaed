"""The build process: ``python -m edgeformer.engine.worker FOLDER``, started by `edgeformer.engine.build_process`.

TensorRT runs here and not in the caller because it can end its process (an exception that leaves a native thread, a
failed dlopen in the parser), holds the GIL while it works, and keeps the memory it took. So a crash becomes a message,
Ctrl-C takes effect at once, and all memory goes back when the build is over.

``FOLDER/job.json`` holds the job. Standard output carries one JSON object a line: ``progress``, ``message``, and at
last ``done`` or ``failed``. Standard input carries nothing: when it closes, the parent is gone, and so are the folder
and this process.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from edgeformer.engine.compiler import compile_engine
from edgeformer.errors import EdgeformerError
from edgeformer.machine.backends import import_backend, require_backend
from edgeformer.machine.messages import MessageLog
from edgeformer.records.engine import BuildJob

__all__ = ["JOB_FILE", "main"]

JOB_FILE = "job.json"


class _Channel:
    """One JSON object a line, whole lines only, from whichever thread TensorRT calls us on."""

    def __init__(self, descriptor: int, folder: Path) -> None:
        self._file = os.fdopen(descriptor, "w", encoding="utf-8")
        self._lock = threading.Lock()
        self._folder = folder

    def send(self, event: str, **fields: Any) -> None:
        with self._lock:
            try:
                self._file.write(json.dumps({"event": event, **fields}) + "\n")
                self._file.flush()
            except BrokenPipeError:  # the parent is gone, and `_die_with_parent` may not have seen it yet
                _abandon(self._folder)


def _abandon(folder: Path) -> NoReturn:
    """End at once and leave nothing behind; whichever thread sees first that nobody waits for the engine any more."""
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _die_with_parent(folder: Path) -> None:
    def watch() -> None:
        while os.read(0, 1):
            pass
        _abandon(folder)

    threading.Thread(target=watch, daemon=True).start()


def _offer_to_the_kernel() -> None:
    """Where memory runs out, let it be this process that is ended: its parent says so, or builds with less."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _peak_resident_bytes() -> int:
    """The largest resident memory of this process; not ``ru_maxrss``, which a child inherits from its parent."""
    found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def main(folder: Path) -> int:
    """Run the job in ``folder``; 0 when it is done or has failed with a message."""
    # Native code prints to standard output as it likes; the channel keeps it to itself.
    channel = _Channel(os.dup(1), folder)
    os.dup2(2, 1)
    _die_with_parent(folder)
    _offer_to_the_kernel()
    try:
        job = BuildJob.model_validate_json((folder / JOB_FILE).read_text(encoding="utf-8"))
        if job.ahead_of_time:
            # A GPU that is here need not be the target's, and neither kernels nor anything else may be chosen by it.
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        trt = import_backend(require_backend(job.flavour))
        messages = MessageLog(forward=lambda severity, text: channel.send("message", severity=severity, text=text))
        compiled = compile_engine(
            trt, job, messages, lambda phase, done, total: channel.send("progress", phase=phase, done=done, total=total)
        )
    except EdgeformerError as error:
        channel.send("failed", error=type(error).__name__, code=error.code, text=str(error))
        return 0
    except OSError as error:
        channel.send("failed", error=OSError.__name__, text=str(error))
        return 0
    channel.send(
        "done",
        compiled=compiled.model_dump(mode="json"),
        peak_host_bytes=_peak_resident_bytes(),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
