"""What an outsider sees of a mesh: the judge's readings from cameras and under lights that optimization never used."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from backend.cameras import Cameras
from backend.evaluation.judge import AZIMUTH_BINS, BIN_DEGREES, Reading, angle_between, likely_azimuth, read, shipped_judge
from backend.evaluation.judge_data import SEED_SPACE, lit_images, on_backgrounds, true_mesh
from backend.representations.mesh_data import MeshData
from backend.toybox.objects import ObjectSpec

VIEWS = 24
PLAIN_GRAY = 0.8
NEAR = 2
"""For a yaw score, the judge's azimuth counts as right within this many bins (30 degrees) of the true one."""
RIGHT_WITHIN = 45.0
"""Degrees within which a view's azimuth was read right: nearer to the true side than to the next one."""


def unseen_cameras(seed: int, views: int = VIEWS) -> Cameras:
    """The standard camera at random azimuths, one in each of `views` equal sectors, elevation -10 to 45."""
    rng = np.random.default_rng([SEED_SPACE, 7, seed])
    azimuth = (np.arange(views) + rng.random(views)) * (360.0 / views)
    return Cameras.orbit(torch.tensor(azimuth).float(), torch.tensor(rng.uniform(-10.0, 45.0, views)).float())


def look(mesh: MeshData, seed: int, views: int = VIEWS) -> tuple[Reading, Tensor]:
    """The judge's reading of `views` unseen views on random backgrounds, and their azimuths [N] in degrees."""
    rng = np.random.default_rng([SEED_SPACE, 8, seed])
    cameras = unseen_cameras(seed, views)
    colors = np.full_like(mesh.positions, PLAIN_GRAY) if mesh.colors is None else mesh.colors
    images = lit_images(MeshData(mesh.positions, mesh.faces, colors), cameras, rng)
    pictures = on_backgrounds(images, torch.Generator().manual_seed(seed))
    return read(shipped_judge(), pictures), cameras.azimuth


def look_at_true_objects(spec: ObjectSpec, seed: int, instances: int = 3) -> tuple[Reading, Tensor]:
    """The same for fresh true objects of `spec`: how well the judge can read such an object at all."""
    rng = np.random.default_rng([SEED_SPACE, 9, seed])
    readings, azimuths = zip(*(look(true_mesh(spec, rng), seed + number) for number in range(instances)))
    joined = [torch.cat([getattr(r, name) for r in readings]) for name in ("kind", "main", "second", "azimuth")]
    return Reading(*joined), torch.cat(azimuths)


def azimuth_right(reading: Reading, azimuth: Tensor) -> float:
    """Share of views [N] whose azimuth the judge reads right, which an object with two fronts cannot have near 1 (Janus)."""
    away = angle_between(likely_azimuth(reading.azimuth), azimuth)
    return (away <= RIGHT_WITHIN).float().mean().item()


def read_azimuths(reading: Reading, azimuth: Tensor) -> list[list[float]]:
    """Of each view [N] its azimuth and the one that the judge reads, in whole degrees."""
    return torch.stack([azimuth, likely_azimuth(reading.azimuth)], 1).round().tolist()


def yaw_scores(reading: Reading, azimuth: Tensor) -> list[float]:
    """How far the judge's azimuths agree with a front toward yaw 0, 90, 180 and 270 degrees, each in [0, 1].

    The probability within 30 degrees of (camera azimuth - yaw), averaged over views. Pictures tell front from back
    where silhouettes cannot: seen from opposite sides they are mirror images of each other, up to perspective.
    """
    offsets = torch.arange(-NEAR, NEAR + 1)
    scores = []
    for yaw in (0.0, 90.0, 180.0, 270.0):
        center = torch.round((azimuth - yaw) / BIN_DEGREES).long()
        bins = (center[:, None] + offsets) % AZIMUTH_BINS
        scores.append(reading.azimuth.gather(1, bins).sum(1).mean().item())
    return scores
