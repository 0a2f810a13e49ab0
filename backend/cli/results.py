"""What a finished job leaves in its output folder beside the report: the mesh and its pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backend.cli.pictures import ELEVATION, animation, encoded, over_background, smaller, turntable_sheet
from backend.cli.report_page import Pictures, report_page
from backend.optimize.pictures import render_views
from backend.representations.mesh_data import MeshData

TURNTABLE_SIZE = 320
TURN_FRAMES = 24
TURN_SIZE = 288


def make_pictures(mesh: MeshData, growth: Sequence[tuple[int, np.ndarray]]) -> Pictures:
    """The views that the result's pictures and its page are made of.

    Args:
        growth: (step, [S, 2 S, 4] u8): the object from a fixed side and, right of it, from one that turns with the job.
    """
    turntable = _around(mesh, 8, TURNTABLE_SIZE)
    turn = _around(mesh, TURN_FRAMES, TURN_SIZE)
    fixed = [(step, frame[:, : frame.shape[0]]) for step, frame in growth]
    return Pictures(turntable, list(turn), fixed)


def _around(mesh: MeshData, count: int, size: int) -> np.ndarray:
    """`count` views [count, S, S, 4], the front first; a few at a time, so that memory stays small."""
    azimuths = [360.0 / count * i for i in range(count)]
    parts = [render_views(mesh, azimuths[i : i + 4], ELEVATION, size) for i in range(0, count, 4)]
    return np.concatenate(parts)


def write_pictures(folder: Path, pictures: Pictures, growth: Sequence[tuple[int, np.ndarray]]) -> None:
    """`turntable.png` (8 views) and `preview.webp` (the turning object while it grows, then once around)."""
    (folder / "turntable.png").write_bytes(encoded(turntable_sheet(over_background(pictures.turntable)), "PNG"))
    size = growth[0][1].shape[0] if growth else TURN_SIZE
    growing = [frame[:, size:] for _, frame in growth]
    turning = [smaller(frame, size) for frame in pictures.turn]
    times = [110] * len(growing) + [90] * len(turning)
    (folder / "preview.webp").write_bytes(animation([*growing, *turning], times))


def write_report(folder: Path, report: dict, pictures: Pictures) -> None:
    """`report.html`, then `report.json`."""
    (folder / "report.html").write_text(report_page(report, pictures), encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(report, allow_nan=False) + "\n", encoding="utf-8")
