"""Pages in headless Chromium, at the width of a telephone and of a screen: complete, quiet, and nothing sticks out."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edgeformer.report import compare_bundles, write_report
from tests.report.conftest import make_bundle
from tests.report.test_comparison import other

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update"),
    *("--disable-background-networking", "--disable-sync", "--disable-dev-shm-usage", "--enable-logging=stderr"),
)
pytestmark = [
    pytest.mark.whole,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
]
# The page in a frame of a certain width: a window of the browser cannot be as narrow as a telephone.
FRAME = """<!DOCTYPE html><meta charset="utf-8"><body style="margin: 0">
<iframe id="frame" style="width: {width}px; height: 3000px; border: 0" srcdoc="{page}"></iframe>
<pre id="found"></pre>
<script>
addEventListener("load", () => {{
  const page = document.getElementById("frame").contentDocument, root = page.documentElement;
  page.querySelectorAll("details").forEach(one => one.open = true);
  const outside = [...page.body.querySelectorAll("*")].filter(one => {{
    if (one.closest(".scroll, pre, .unseen, svg")) return false;
    return one.getBoundingClientRect().right > {width} + 0.5;
  }});
  const sizes = [...page.querySelectorAll("svg.chart")].map(one => one.getBoundingClientRect().width);
  document.getElementById("found").textContent = JSON.stringify({{
    scroll: root.scrollWidth,
    outside: outside.map(one => one.outerHTML.slice(0, 80)),
    text: page.body.innerText,
    charts: sizes,
    image: getComputedStyle(page.querySelector(".look") || page.body).backgroundImage.slice(0, 20),
  }});
}});
</script>
"""


def opened(page: Path, width: int, folder: Path) -> tuple[dict[str, Any], str]:
    """What a page looks like at a width, and what the browser had to say."""
    frame = folder / f"frame_{width}.html"
    frame.write_text(FRAME.format(width=width, page=html.escape(page.read_text(encoding="utf-8"))), encoding="utf-8")
    words = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", "--window-size=1600,3000", "--dump-dom"]
    result = subprocess.run([*words, frame.as_uri()], capture_output=True, text=True, check=True, timeout=120)
    dom = result.stdout
    found = html.unescape(dom[dom.index('<pre id="found">') :].partition(">")[2].partition("</pre>")[0])
    return json.loads(found), result.stderr


@pytest.mark.parametrize("width", [360, 1440])
def test_a_page_on_a_bundle(bundle: Path, tmp_path: Path, width: int) -> None:
    found, log = opened(write_report(bundle), width, tmp_path)
    assert "CONSOLE" not in log
    assert found["outside"] == []
    assert found["scroll"] <= width
    for figure in ("97.8 %", "Every gate here passed", "edgeformer verify b --trust-bundle", "stages.2.1", "SHA-256"):
        assert figure in found["text"]
    assert len(found["charts"]) == 3
    assert all(250 < size < width for size in found["charts"])
    assert found["image"].startswith('url("data:image/jpeg')


@pytest.mark.parametrize("width", [360, 1440])
def test_bundles_side_by_side(bundle: Path, tmp_path: Path, width: int) -> None:
    page = compare_bundles([bundle, make_bundle(tmp_path / "second", other)], tmp_path / "two.html")
    found, log = opened(page, width, tmp_path)
    assert "CONSOLE" not in log
    assert found["outside"] == []
    assert found["scroll"] <= width
    for figure in ("97.8 %", "91.5 %", "second", "rtx-50"):
        assert figure in found["text"]


def test_the_probe_sees_what_is_wrong(tmp_path: Path) -> None:
    page = tmp_path / "wrong.html"
    page.write_text('<!DOCTYPE html><div style="width: 500px">wide</div><script>console.error("loud")</script>')
    found, log = opened(page, 360, tmp_path)
    assert found["scroll"] == 500 or found["scroll"] > 360
    assert len(found["outside"]) == 1
    assert "loud" in log
