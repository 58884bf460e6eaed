"""Publishing a bundle together with the page on it."""

from __future__ import annotations

import logging
from pathlib import Path

from edgeformer.bundle import Manifest, Staging
from edgeformer.report import renew_report

__all__ = ["publish"]

_log = logging.getLogger(__name__)


def publish(work: Staging, manifest: Manifest) -> None:
    """Publish a bundle with ``report.html`` in it. Where that cannot be made, a warning says why, and nothing fails.

    Raises:
        InputError: as `Staging.publish`.
        OSError: as `Staging.publish`.
    """

    def complete(folder: Path) -> None:
        left_out = renew_report(folder, name=work.target.name)
        if left_out is not None:
            _log.warning(left_out)

    work.publish(manifest, complete=complete)
