from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

import pytest
from PIL import Image

import edgeformer.report.sensitivity as module
from edgeformer.records.sensitivity import LayerSensitivity, SensitivityReport
from edgeformer.report.sensitivity import check_plot, write_csv, write_plot
from tests.raising import raises


def report(count: int = 5, *, degraded: bool = True, names: str = "blocks.{}.fc1") -> SensitivityReport:
    layers = [
        LayerSensitivity(
            node=names.format(number),
            op="MatMul",
            output=f"tensor_{number}",
            snr_clean_db=40.0 + number,
            snr_degraded_db=38.5 + number if degraded else None,
            multiply_adds=1000 * (number + 1),
        )
        for number in range(count)
    ]
    return SensitivityReport(
        edgeformer="0",
        model_sha256="a",
        data_sha256="b",
        recipe="r",
        images=1,
        multiply_adds=10**6,
        layers=tuple(layers),
    )


@pytest.mark.parametrize("degraded", [True, False])
def test_an_svg_names_every_layer_in_its_rank(tmp_path: Path, degraded: bool) -> None:
    path = tmp_path / "plot.svg"
    write_plot(report(degraded=degraded), path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<?xml")
    for number in range(5):
        assert f"blocks.{number}.fc1  {number + 1}" in text
    assert ("degraded" in text) == degraded


def test_the_same_report_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg", "a.png", "b.png"):
        write_plot(report(), tmp_path / name)
    for ending in ("svg", "png"):
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_a_png_grows_with_the_layers_and_stays_one_that_can_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_LAYERS", 8)
    heights = []
    for count in (1, 5, 8, 40):
        write_plot(report(count), tmp_path / "plot.PNG")
        with Image.open(tmp_path / "plot.PNG") as image:
            assert image.format == "PNG"
            assert image.width == 1350
            heights.append(image.height)
    assert heights[0] < heights[1] < heights[2] == heights[3]


def test_names_that_mean_something_to_the_renderer_are_text(tmp_path: Path) -> None:
    write_plot(report(1, names="$x_{{1}}$ <b>&"), tmp_path / "plot.svg")
    assert "$x_{1}$ &lt;b&gt;&amp;" in (tmp_path / "plot.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["plot", "plot.pdf", "svg"])
def test_another_ending_is_refused_before_any_work(tmp_path: Path, name: str) -> None:
    with raises("EF101", name, ".svg", ".png"):
        check_plot(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_way_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with raises("EF601", "pip install 'edgeformer[report]'"):
        check_plot(tmp_path / "plot.svg")


def test_csv_has_a_line_a_layer(tmp_path: Path) -> None:
    given = report(3, degraded=False, names='a,"{}"')
    write_csv(given, tmp_path / "t.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text(encoding="utf-8"))))
    expected = [{name: "" if value is None else str(value) for name, value in row.items()} for row in given.rows()]
    assert rows == expected
    assert [row["node"] for row in rows] == ['a,"0"', 'a,"1"', 'a,"2"']
