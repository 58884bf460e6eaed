"""Plots: their colours and fonts are the page's, and names are nothing but text."""

from __future__ import annotations

import math
import re
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from edgeformer.records.quantization import ActivationHistogram, ActivationRecord
from edgeformer.report.charts import Bar, histogram_chart, snr_chart
from tests.raising import raises


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="x" ', 1))


def texts(svg: str) -> list[str]:
    return [(element.text or "").strip() for element in parsed(svg).iter("text")]


def activation(name: str, counts: tuple[int, ...], amax: float = 3.0) -> ActivationRecord:
    histogram = ActivationHistogram(bin_width=1.0, counts=counts, largest=len(counts) - 0.5, clipped=0.0)
    return ActivationRecord(tensor=name, layers=("layer",), amax=amax, histogram=histogram)


def test_colours_and_fonts_are_the_pages() -> None:
    for svg in (snr_chart([Bar("a", 40.0, True)], "dB"), histogram_chart([activation("a", (5, 3, 1))], "h")):
        assert not re.search(r"#[0-9a-fA-F]{6}\b|font-family|DejaVu|http|<style|<metadata", svg)
        assert " width=" not in svg[: svg.index(">")]
        assert "var(--accent)" in svg
        assert "currentColor" in svg


def test_values_stand_in_their_order_and_proportion() -> None:
    bars = [Bar("first", 50.0, False), Bar("second", 25.0, True), Bar("none", None, False), Bar("zero", 0.0, False)]
    svg = snr_chart(bars, "SNR, dB")
    names = [text for text in texts(svg) if not text.replace(".", "").isdigit()]
    assert names == ["SNR, dB", "first", "second", "none", "zero"]
    dots = [
        (float(use.get("x", "")), float(use.get("y", "")), "fill: var(--accent)" in use.get("style", ""))
        for use in parsed(svg).iter("use")
        if "stroke: var(--accent)" in use.get("style", "")
    ]
    assert len(dots) == 3
    (first, above, _), (second, below, marked), (zero, *_) = dots
    assert above < below
    assert marked
    assert (first - zero) / (second - zero) == pytest.approx(2, abs=0.01)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 0.0])
def test_any_value_can_be_drawn(value: float) -> None:
    assert "nan" not in snr_chart([Bar("a", value, False), Bar("b", 30.0, False)], "dB").lower()
    assert "nan" not in snr_chart([Bar("a", value, False)], "dB").lower()


def test_names_are_text() -> None:
    hostile = "<script>$\\frac{1}{0}$</script>\x1b字"
    for svg in (snr_chart([Bar(hostile, 40.0, True)], "dB"), histogram_chart([activation(hostile, (5, 3, 1))], "h")):
        assert "<script" not in svg
        (name,) = (text for text in texts(svg) if "script" in text)
        assert name.endswith("</script>??")


def test_a_histogram_for_each_activation() -> None:
    svg = histogram_chart([activation(f"tensor_{number}", (9, 0, 2)) for number in range(7)], "h")
    assert texts(svg) == [f"tensor_{number}" for number in range(7)]


def test_drawing_leaves_the_users_settings_alone() -> None:
    import matplotlib

    with matplotlib.rc_context({"text.usetex": True, "font.size": 31.0}):
        svg = snr_chart([Bar("a", 40.0, True)], "dB")
        assert matplotlib.rcParams["font.size"] == 31.0
    assert svg == snr_chart([Bar("a", 40.0, True)], "dB")


def test_without_matplotlib_the_message_has_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with raises("EF601", "matplotlib", "pip install 'edgeformer[report]'"):
        snr_chart([Bar("a", 40.0, True)], "dB")
