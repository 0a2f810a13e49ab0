"""The whole way once more in a real Blender window, with mouse and keyboard; see real_window.py."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.blender.blender import build_zip
from tests.journeys.real_window import NoWindow, run_in_window, window_root
from tests.journeys.service import Service

TASK = {"prompt": "a red mushroom with a white stem", "steps": 40, "seed": 0, "film": 0}


def test_an_artist_generates_and_accepts_with_mouse_and_keyboard(tmp_path: Path) -> None:
    try:
        root = window_root()
    except NoWindow as error:
        pytest.skip(str(error))
    share = tmp_path / "share"
    share.mkdir()
    zip_file = build_zip(sys.executable, tmp_path / "zip")
    with Service(tmp_path / "service") as service:
        service.wait_until_warm()
        report = run_in_window(root, zip_file, service.folder, share, TASK, timeout=240)
    print(f"Blender {report['blender']}, Python {report['python']}; first change seen after {report['first_visible_seconds']} s")

    assert report["typed"] == TASK["prompt"], "the keyboard reached the field"
    steps = [step for _, step, _ in report["updates"]]
    assert len(steps) > 4 and steps == sorted(steps) and any(0 < step < TASK["steps"] for step in steps)
    assert report["drawings"] > 3, "the window was drawn with the changes in it"
    assert report["first_visible_seconds"] is not None

    accepted = report["accepted"]
    assert accepted["vertices"] > 100 and accepted["materials"] and accepted["colors"] and not accepted["properties"]
    assert report["after_undo"] is None and report["after_redo"] == accepted

    before, early, middle, finished = (pixels(share / f"{name}.png", report["view"]) for name in ("before", "early", "middle", "finished"))
    for earlier, later in ((before, early), (early, middle), (middle, finished)):
        changed = (np.abs(later - earlier).max(2) > 20).mean()
        assert changed > 0.003, "the picture in the view is another one"


def pixels(file: Path, view: list[int]) -> np.ndarray:
    """The part of a picture of the screen that shows the scene, [H, W, 3]."""
    left, top, width, height = view
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB").crop((left, top, left + width, top + height)), np.int16)
