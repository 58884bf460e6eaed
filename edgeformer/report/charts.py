"""Plots as SVG for a page: no fixed colours, no fonts and no size of their own, so that they fit light and dark.

matplotlib draws with placeholders for colours, which become those of the page; text stays text.
"""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgeformer.errors import EnvironmentFault
from edgeformer.records.quantization import ActivationRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Bar", "Line", "drawing", "histogram_chart", "plain_label", "snr_chart", "times_chart"]

# Colours that matplotlib draws with, and what they are on the page.
_INK, _MUTED, _ACCENT, _LINE, _SECOND = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05"
_ON_PAGE = {
    _INK: "currentColor",
    _MUTED: "var(--muted)",
    _ACCENT: "var(--accent)",
    _LINE: "var(--line)",
    _SECOND: "var(--second)",
}
_SETTINGS: Any = {
    "axes.edgecolor": _LINE,
    "axes.facecolor": "none",
    "axes.labelcolor": _MUTED,
    "axes.labelsize": 10,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "edgeformer",
    "text.color": _INK,
    # Names may hold dollars.
    "text.parse_math": False,
    "text.usetex": False,
    "xtick.color": _MUTED,
    "xtick.labelsize": 10,
    "ytick.color": _INK,
    "ytick.labelsize": 10,
    "ytick.major.size": 0,
}
# Inches: at 72 points each about as wide as the page of a telephone.
_WIDTH = 4.75
# Of a histogram: what the smallest count of 1 is drawn as, so that it is seen.
_FLOOR = 0.06
_COLUMNS = 3


class Bar(NamedTuple):
    """A line of `snr_chart`: a name, a value or None, and whether it stands out."""

    name: str
    value: float | None
    marked: bool


class Line(NamedTuple):
    """A line of `times_chart`: a name, quantiles at even steps, and whether it stands out."""

    name: str
    values: Sequence[float]
    marked: bool


def snr_chart(bars: Sequence[Bar], label: str) -> str:
    """Values as dots on lines, one below the other.

    Args:
        bars: from above to below; infinite values are drawn at the edge.
        label: of the axis.

    Returns:
        An ``<svg>`` element.

    Raises:
        EnvironmentFault: matplotlib is not installed.
    """
    with drawing((_WIDTH, 0.65 + 0.25 * len(bars))) as figure:
        axes = figure.add_subplot()
        finite = [bar.value for bar in bars if bar.value is not None and np.isfinite(bar.value)]
        top = 1.08 * max(finite, default=1.0)
        bottom = min(0.0, *finite) if finite else 0.0
        for row, bar in enumerate(bars):
            if bar.value is None or np.isnan(bar.value):
                continue
            value = min(max(bar.value, bottom), top)
            axes.plot([bottom, value], [row, row], color=_LINE, linewidth=1.2, zorder=1)
            axes.plot(
                [value],
                [row],
                marker="o",
                markersize=5.5,
                markerfacecolor=_ACCENT if bar.marked else "none",
                markeredgecolor=_ACCENT,
                markeredgewidth=1.3,
                linestyle="none",
                clip_on=False,
                zorder=2,
            )
        axes.set_yticks(range(len(bars)), [plain_label(bar.name, 28) for bar in bars])
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.set_xlim(bottom, top)
        axes.set_xlabel(label)
        axes.spines["bottom"].set_color(_LINE)
        return _svg(figure, f"{label}, part by part", "snr")


def histogram_chart(activations: Sequence[ActivationRecord], prefix: str) -> str:
    """Histograms of magnitudes side by side, counts on a logarithmic scale, each with the end of its range.

    Args:
        activations: those with a histogram that has values.
        prefix: of the element's ids, which a page has once.

    Returns:
        An ``<svg>`` element.

    Raises:
        EnvironmentFault: matplotlib is not installed.
    """
    rows = -(-len(activations) // _COLUMNS)
    with drawing((_WIDTH, 0.9 * rows)) as figure:
        # One pair of axes for all: hundreds of them would take seconds.
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_axis_off()
        axes.set_xlim(0, _COLUMNS)
        axes.set_ylim(rows, 0)
        for number, activation in enumerate(activations):
            histogram = activation.histogram
            assert histogram is not None
            left, floor = number % _COLUMNS + 0.04, number // _COLUMNS + 0.94
            counts = np.array(histogram.counts, np.float64)
            heights = np.where(counts > 0, _FLOOR + (1 - _FLOOR) * np.log1p(counts) / np.log1p(counts.max()), 0)
            span = max(histogram.bin_width * len(counts), activation.amax)
            edges = left + 0.9 * histogram.bin_width * np.arange(len(counts) + 1) / span
            axes.stairs(floor - 0.62 * heights, edges, baseline=floor, fill=True, color=_ACCENT, alpha=0.55)
            end = left + 0.9 * activation.amax / span
            axes.plot([left, left + 0.9], [floor, floor], color=_LINE, linewidth=0.8)
            axes.plot([end, end], [floor, floor - 0.66], color=_SECOND, linewidth=1.2)
            axes.text(left, floor - 0.72, plain_label(activation.tensor, 20), fontsize=8.5, color=_INK)
        return _svg(figure, "histograms of the activations that quantized layers read", prefix)


def times_chart(lines: Sequence[Line], label: str, prefix: str) -> str:
    """How much of the runs was done by when: for each model its quantiles as a rising line.

    Args:
        lines: the models, each with its quantiles at even steps from the shortest time to the longest.
        label: of the axis of times.
        prefix: of the element's ids, of which a page has each once.

    Returns:
        An ``<svg>`` element.

    Raises:
        EnvironmentFault: matplotlib is not installed.
    """
    with drawing((_WIDTH, 2.3 + 0.18 * len(lines))) as figure:
        axes = figure.add_subplot()
        styles = itertools.cycle(("--", "-.", ":"))
        for line in sorted(lines, key=lambda one: one.marked):
            colour = _ACCENT if line.marked else _MUTED
            style = "-" if line.marked else next(styles)
            shares = np.linspace(0, 100, len(line.values))
            label_of = plain_label(line.name, 40)
            axes.plot(line.values, shares, color=colour, linestyle=style, linewidth=1.6, label=label_of)
        axes.set_ylim(0, 100)
        axes.set_yticks([0, 50, 90], ["0 %", "50 %", "90 %"])
        # A few slow runs would press all others into one corner.
        axes.set_xlim(0.97 * min(line.values[0] for line in lines), max(_shown_end(line.values) for line in lines))
        axes.grid(axis="y", color=_LINE, linewidth=0.6)
        axes.set_xlabel(label)
        legend = figure.legend(loc="outside upper left", frameon=False, fontsize=9)
        for text in legend.get_texts():
            text.set_color(_INK)
        return _svg(figure, label, prefix)


def _shown_end(values: Sequence[float]) -> float:
    """The end of the axis: the 99th percentile and a little more."""
    return 1.03 * float(np.quantile(np.asarray(values), 0.99))


@contextmanager
def drawing(size: tuple[float, float]) -> Iterator[Figure]:
    """A figure of so many inches in our style, whatever the user's settings of matplotlib are.

    Raises:
        EnvironmentFault: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EnvironmentFault(
            "EF601", f"the report and plots need matplotlib ({error}): pip install 'edgeformer[report]'"
        ) from error
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of glyphs that the font here lacks: the page's own font draws the text
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_visible(False)
        yield figure


def plain_label(text: str, most: int) -> str:
    """A label: letters that every font has, and not too many; the end of a name tells more than its beginning."""
    plain = text.encode("ascii", "replace").decode("ascii")
    plain = "".join(character if character.isprintable() else "?" for character in plain)
    return plain if len(plain) <= most else "…" + plain[1 - most :]


def _svg(figure: Figure, title: str, prefix: str) -> str:
    """The figure as an element of a page."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    body = text[text.index("<svg") :]
    opening, _, rest = body.partition(">")
    match = re.search(r'viewBox="([\d. ]+)"', opening)
    assert match is not None
    rest = re.sub(r"<metadata>.*?</metadata>", "", rest, flags=re.DOTALL)
    rest = re.sub(r"<style[^>]*>.*?</style>", "", rest, flags=re.DOTALL)
    rest = re.sub(r"<!--.*?-->", "", rest, flags=re.DOTALL)
    # The page's own font, in the size that was asked for; releases of matplotlib write it in two ways.
    rest = re.sub(r"font-family: [^;\"]+;? ?", "", rest)
    rest = re.sub(r"font: (?:[a-z]+ )?([\d.]+px) [^;\"]+", r"font-size: \1", rest)
    used = set(re.findall(r'(?:url\(|href=")#([\w-]+)', rest))
    rest = re.sub(r' id="([\w.-]+)"', lambda found: f' id="{prefix}-{found[1]}"' if found[1] in used else "", rest)
    rest = re.sub(r'((?:url\(|href=")#)', rf"\g<1>{prefix}-", rest)
    for colour, on_page in _ON_PAGE.items():
        rest = rest.replace(f": {colour}", f": {on_page}")
    width = match[1].split()[2]
    return f'<svg class="chart" viewBox="{match[1]}" style="--width: {width}px" role="img" aria-label="{title}">{rest}'
