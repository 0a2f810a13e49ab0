"""What a finished job leaves in its output folder beside the report: the mesh and its pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from backend.cli.pictures import ELEVATION, animation, encoded, over_background, smaller, turntable_sheet
from backend.cli.report_page import REGION_COLORS, Pictures, report_page
from backend.optimize.inputs import RegionMask
from backend.optimize.pictures import render_views
from backend.representations.masks import resized_mask, vertex_mask
from backend.representations.mesh_data import MaterialData, MeshData

TURNTABLE_SIZE = 320
TURN_FRAMES = 24
TURN_SIZE = 288
REGION_GROUND = 0.72


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


def region_views(mesh: MeshData, regions: Sequence[RegionMask]) -> np.ndarray:
    """The mesh with each region in a color of its own, [4, S, S, 4]: as it is painted where all masks came as pictures."""
    painted = all(region.texels is not None for region in regions)
    if painted:
        size = max((region.texels.shape for region in regions), key=max)
        masks = [resized_mask(torch.from_numpy(region.texels), size).numpy() for region in regions]
        surface = MaterialData(_tinted(masks), roughness=1.0)
        shown = replace(mesh, colors=None, material=surface)
    else:
        masks = [vertex_mask(region.texels, mesh).numpy() if region.vertices is None else region.vertices for region in regions]
        shown = replace(mesh, colors=_tinted(masks), material=None)
    return _around(shown, 4, TURNTABLE_SIZE)


def _tinted(masks: Sequence[np.ndarray]) -> np.ndarray:
    """Gray where no mask is, the regions' colors where one is; [..., 3]."""
    color = np.full((*masks[0].shape, 3), REGION_GROUND, np.float32)
    for number, mask in enumerate(masks):
        color += mask[..., None] * (np.array(REGION_COLORS[number], np.float32) / 255.0 - color)
    return color


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
