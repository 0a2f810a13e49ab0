"""What a job told about itself is in its history once, in report.json as it was said, and drawn on the page."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from backend.cli.diagnosis_charts import bars, compass, rose, shares
from backend.cli.job_history import HistoryLog
from backend.cli.report_diagnosis import diagnosis_section
from backend.optimize.events import Diagnosed, StepDone

TOLD = Diagnosed(
    25, 0, {"distillation": 0.75, "laplacian": 0.25}, {"distillation": 0.9, "laplacian": 0.1}, {"positions": 0.01},
    (3, 2, 4, 3, 2, 4, 3, 2, 4, 3, 2, 4), 0.42, (0, 1, 2, 3, 4, 5, 4, 3, 2, 1), 0.1, 0.25,
    ((0.0, 0.0), (90.0, 90.0), (180.0, 0.0), (270.0, 270.0)),
)  # fmt: skip


def at(step: int, **changes: object) -> Diagnosed:
    return dataclasses.replace(TOLD, step=step, **changes)


def report(*told: Diagnosed, judge: dict | None = None) -> dict:
    lines = json.loads(json.dumps([dataclasses.asdict(each) for each in told]))
    return {"diagnostics": lines, "judge": judge or {"skipped": "nobody asked"}}


def done(step: int) -> StepDone:
    return StepDone(step, 50, 0, 0.1, 1.0, {"loss": 1.0}, (0.0,), (0.0,), 0.5)


def test_history_keeps_the_last_of_each_step_and_forgets_what_is_made_again(tmp_path: Path) -> None:
    log = HistoryLog(tmp_path)
    for step in (1, 2, 3, 4):
        log.add(done(step))
        log.add(at(step, update_norms={"positions": math.nan}))
    log.add(at(4, saturation=0.9))
    log.close()
    resumed = HistoryLog(tmp_path)
    resumed.add(at(2, saturation=0.5))  # told again by a job that goes on after step 2
    resumed.add(done(3))
    resumed.add(at(3))
    history = resumed.read()
    resumed.close()
    assert [(line["step"], line["saturation"]) for line in history.diagnoses] == [(1, 0.1), (2, 0.5), (3, 0.1)]
    assert history.diagnoses[0]["update_norms"] == {"positions": None}
    assert history.diagnoses[0]["azimuths"] == list(TOLD.azimuths)
    assert history.diagnoses[0]["read_azimuths"][2] == [180.0, 0.0]


def test_section_draws_and_says_everything() -> None:
    judge = {"azimuth_right": 0.9, "true_azimuth_right": 0.95, "read_azimuths": [[10.0, 12.0], [200.0, 20.0]]}
    html = diagnosis_section(report(at(1, janus=None, read_azimuths=()), TOLD, judge=judge))
    for title in ("Share of the gradient", "Share of the loss", "Saturated pixels", "Update of positions", "Views by azimuth",
                  "Timesteps", "Read by the prior", "Read by the judge"):  # fmt: skip
        assert title in html, title
    assert "p = 0.42" in html and "reads 25% of the sides" in html and "10% of the views wrong, and 5% of true" in html
    assert html.count('class="wrong"') == 2 and html.count('class="right"') == 4


def test_section_says_that_nothing_was_read() -> None:
    assert "no Janus index" in diagnosis_section(report(dataclasses.replace(TOLD, janus=None, read_azimuths=())))
    assert diagnosis_section(report()) == ""


def test_drawings_are_well_formed_and_tell_every_count() -> None:
    names = [f"loss_{number}<" for number in range(9)]
    values = [{name: 1 / 9 for name in names}, {}, {name: 1 / 9 for name in names}]
    figures = [
        shares("s <", [1, 2, 3], values, names), shares("one", [4], [{"a": 1.0}], ["a"]), rose("r", TOLD.azimuths),
        compass("c", TOLD.read_azimuths, 45.0), bars("b", TOLD.timesteps, "<", ">"), rose("few", (1,) + (0,) * 11),
    ]  # fmt: skip
    for figure in figures:
        ElementTree.fromstring(figure)
    assert "others <b>44%" in figures[0]
    assert [int(count) for count in re.findall(r": (\d+) views", figures[2])] == list(TOLD.azimuths)
    assert [int(count) for count in re.findall(r">(\d+) steps", figures[4])] == list(TOLD.timesteps)
    assert shares("nothing", [1], [{}], []) == ""


def test_stacked_shares_fill_the_chart() -> None:
    figure = shares("s", [1, 2], [{"a": 0.5, "b": 0.5}, {"a": 0.25, "b": 0.75}], ["a", "b"])
    heights = [[float(point.split()[1]) for point in path[1:-1].split("L")] for path in re.findall(r' d="(M[^"]*)"', figure)]
    bottom, top = heights[0][0], heights[1][-1]
    assert heights[0][3] == pytest.approx((bottom + top) / 2, abs=0.1)  # a at the first step
    assert heights[0][2] == pytest.approx(bottom - (bottom - top) / 4, abs=0.1)  # and at the second
