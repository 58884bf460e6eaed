"""What ``edgeformer verify --per-block`` prints of a report."""

from __future__ import annotations

import math

import pytest

from edgeformer.cli import _blocks, _common
from edgeformer.records.blocks import BlockCheck, BlockFault, BlocksReport, FormBlocks
from edgeformer.verify.gates import check


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_common.console, "width", 160)


def report() -> BlocksReport:
    right = BlockCheck(
        name="stages.0.0",
        inputs=("a",),
        outputs=("b",),
        isolated_snr_db=math.inf,
        accumulated_snr_db=41.25,
        routing_agreement=0.9974,
        verdict=check("block", {"noise_ratio": 1.26}),
    )
    fault = BlockFault(
        kind="values",
        node="MatMul 'product'",
        tensor="c",
        module="stages.1.0.mlp.0",
        between=tuple(f"Cast 'cast_{number}'" for number in range(8)),
        value=51.0,
        limit=4.0,
        text="MatMul 'product' of stages.1.0.mlp.0: noise",
    )
    wrong = BlockCheck(
        name="stages.1.0",
        inputs=("b",),
        outputs=("c",),
        verdict=check("block", {"noise_ratio": 51.0}),
        faults=(fault, fault.model_copy(update={"text": "the second", "between": ()})),
    )
    forms = (
        FormBlocks(name="pytorch", status="not run", text="pytorch not run: no checkpoint"),
        FormBlocks(name="fused", status="reference"),
        FormBlocks(name="typed", against="fused", status="wrong", text="goes wrong", blocks=(right, wrong)),
    )
    return BlocksReport(forms=forms, samples=8)


def test_a_row_for_each_block_and_what_is_wrong_below(capsys: pytest.CaptureFixture[str]) -> None:
    _blocks.print_blocks(report())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    words = [[word.strip() for word in line.split("  ") if word.strip()] for line in lines]
    assert lines[0] == "pytorch not run: no checkpoint"
    assert lines[1] == "typed against fused: wrong"
    assert words[2] == ["block", "verdict", "SNR alone", "SNR so far", "routing", "worst result"]
    assert words[4] == ["stages.0.0", "passed", "equal", "41.2 dB", "99.74 %", "1.3 <= 4"]
    assert words[5] == ["stages.1.0", "WRONG", "51 > 4"]
    assert lines[6].startswith(
        "stages.1.0: MatMul 'product' of stages.1.0.mlp.0: noise (or what stands before it: ..., "
    )
    assert "cast_1'" not in lines[6]
    assert "cast_7'" in lines[6]
    assert lines[7] == "  then the second"
    assert lines[8].startswith("8 images")
