"""Warm-ups that are no longer than a test needs."""

from __future__ import annotations

import pytest

from edgeformer.latency import sampling


@pytest.fixture
def quick_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's own takes half a second for each model."""
    monkeypatch.setattr(sampling, "_LEAST_WARM_SECONDS", 0.01)
