"""Publishing a bundle together with the page on it."""

from __future__ import annotations

import logging
from pathlib import Path

from edgeformer.bundle import Manifest, Staging
from edgeformer.bundle.report_file import report_state
from edgeformer.report import renew_report

__all__ = ["publish"]

_log = logging.getLogger(__name__)


def publish(work: Staging, manifest: Manifest) -> None:
    """Publish a bundle with ``report.html`` in it. Where that cannot be made, a warning says why, and nothing fails.

    A bundle that nothing would change in stays as it is, with its page and its signature.

    Raises:
        InputError: as `Staging.publish`.
        OSError: as `Staging.publish`.
    """
    if work.unchanged(manifest) and report_state(work.target) == "current":
        return

    def complete(folder: Path) -> None:
        left_out = renew_report(folder, name=work.target.name)
        if left_out is not None:
            _log.warning(left_out)

    work.publish(manifest, complete=complete)
