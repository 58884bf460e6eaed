"""The report on a bundle: one page that needs nothing besides itself, made from the manifest.

Every figure in it is the manifest's, in the words of `edgeformer.bundle.figures`, which the command line uses, too. The
sample image comes from ``parity.npz``, whose hash the manifest has.
"""

from __future__ import annotations

from edgeformer.report.writing import compare_bundles, renew_report, write_report

__all__ = ["compare_bundles", "renew_report", "write_report"]
