"""The report is complete and valid JSON, and the page made from it needs nothing beside itself."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import msgspec
import numpy as np
import pytest

from backend.cli.job_history import History
from backend.cli.report import make_report
from backend.cli.report_page import Pictures, report_page
from backend.cli.svg_charts import curve, dots, view_map
from backend.representations.mesh_data import MeshData
from protocol.settings import GridStage, JobSettings, MeshStage

VOID = {"meta", "img", "input", "br", "link"}

TETRAHEDRON = MeshData(
    np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32),
    np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32),
)


def history(steps: int = 30) -> History:
    made = History()
    for number in range(1, steps + 1):
        stage = int(number > steps // 2)
        numbers = {"gradient_norm": 10.0 ** (-number / 8)} | ({"laplacian": 0.1} if stage else {"entropy": None})
        angles = {"azimuths": [(37.0 * number) % 360, 5.0], "elevations": [number % 40 - 10.0] * 2}
        made.steps.append({"step": number, "stage": stage, "seconds": 0.1, "timestep": 30.0 * number, "numbers": numbers, **angles})
    for index, kind in enumerate(("grid", "mesh")):
        made.stages.append({"after_step": 0, "index": index, "count": 2, "type": kind, "steps": steps // 2})
    made.sittings.append({"after_step": 0, "started": "2026-01-01T00:00:00+00:00"})
    made.warnings.append({"after_step": 3, "message": "small <pieces> & dust"})
    return made


def report(prompt: str = "a <b>red</b> mushroom", **changes: object) -> dict:
    settings = JobSettings(prompt=prompt, stages=(GridStage(steps=15), MeshStage(steps=15)), seed=3)
    given = {
        "source": None,
        "mesh": TETRAHEDRON,
        "history": history(),
        "timings": {"prior": 1.0, "previews": 0.5, "first_preview": 0.7},
        "environment": {"packages": {"torch": "2"}, "device": "cpu"},
        "facts": {"threshold": np.float32(2.5), "loss": math.nan},
        "judge": {"skipped": "not asked"},
    } | changes
    return make_report("generate", settings, **given)


def pictures(frames: int = 5) -> Pictures:
    rng = np.random.default_rng(0)
    views = rng.integers(0, 255, (8, 16, 16, 4)).astype(np.uint8)
    return Pictures(views, list(views), [(10 * i, views[i]) for i in range(frames)])


class Page(HTMLParser):
    """Collects what a page refers to, and checks that its tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        self.references += re.findall(r"url\((.*?)\)", dict(attrs).get("style") or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data + "\n"


def test_report_holds_the_whole_settings_tree_and_every_step() -> None:
    made = json.loads(json.dumps(report(), allow_nan=False))
    rebuilt = msgspec.convert(made["settings"], JobSettings)
    assert rebuilt.seed == 3 and rebuilt.stages == (GridStage(steps=15), MeshStage(steps=15))
    assert made["steps"]["step"] == list(range(1, 31))
    assert len(made["steps"]["numbers"]["laplacian"]) == 30 and made["steps"]["numbers"]["laplacian"][0] is None
    assert made["facts"] == {"threshold": 2.5, "loss": None}
    assert made["result"]["faces"] == 4 and made["result"]["sound"] is True


def test_page_is_self_contained_and_well_formed() -> None:
    page = Page(report_page(report(), pictures()))
    assert page.open == []
    files = {"mesh.glb", "turntable.png", "preview.webp", "report.json"}
    assert all(reference.startswith("data:image/webp;base64,") or reference in files for reference in page.references)
    assert any(reference.startswith("data:") for reference in page.references)


def test_page_uses_no_network() -> None:
    assert not re.findall(r"https?://|@import|fetch\(|XMLHttpRequest", report_page(report(), pictures()))


def test_page_shows_words_of_the_user_as_they_are() -> None:
    text = report_page(report("<script>alert(1)</script> & \"quotes\""), pictures())
    page = Page(text)
    assert "<script>alert(1)" not in text
    assert '<script>alert(1)</script> & "quotes"' in page.text
    assert "small <pieces> & dust" in page.text


@pytest.mark.parametrize("frames", [0, 1])
def test_page_of_a_job_too_short_for_a_growth_strip(frames: int) -> None:
    short = report(history=history(2))
    assert Page(report_page(short, pictures(frames))).open == []


def test_curves_are_drawn_to_scale() -> None:
    svg = ElementTree.fromstring(curve("loss", [1, 2, 3], [0.0, 5.0, 10.0], []))
    path = next(element.get("d") for element in svg.iter() if element.get("class") == "curve")
    points = np.array([[float(v) for v in pair.split()] for pair in path[1:].split("L")])
    np.testing.assert_allclose(points[1], points[[0, 2]].mean(0), atol=0.1)
    assert points[0, 1] > points[2, 1]  # a larger value is higher up


def test_wide_ranges_get_a_logarithmic_axis() -> None:
    svg = ElementTree.fromstring(curve("norm", [1, 2, 3], [1.0, 100.0, 10000.0], []))
    path = next(element.get("d") for element in svg.iter() if element.get("class") == "curve")
    heights = [float(pair.split()[1]) for pair in path[1:].split("L")]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)


@pytest.mark.parametrize("values", [[0.0, 0.0], [5.0], [-1.0, -1.0], [None, None], [None, 2.0], [1e-12, 1e12]])
def test_awkward_values_still_make_a_chart(values: list[float | None]) -> None:
    drawing = curve("x", list(range(1, len(values) + 1)), values, [(1, 1)])
    assert "nan" not in drawing and "inf" not in drawing
    assert dots("t", [1], [0.0], [(1, 1)])


def test_view_map_puts_the_front_below_and_plus_x_right() -> None:
    svg = ElementTree.fromstring(view_map([7.0, 97.0], [0.5, 0.5]))
    cells = [element.get("d") for element in svg.iter() if element.get("class") == "cell"]
    centers = [np.mean([[float(v) for v in pair] for pair in re.findall(r"(\d+\.\d) (\d+\.\d)(?=[ALZ])", cell)], 0) for cell in cells]
    front, right = centers if centers[0][1] > centers[1][1] else centers[::-1]
    assert front[1] > 300 and abs(front[0] - 190) < 40
    assert right[0] > 300 and abs(right[1] - 190) < 40
