"""Fitting meshes to pictures with each kind of silhouettes: a cube seen from random poses, and a sphere that becomes one.

    python -m benchmarks.silhouette_fitting [--seeds-cube 8] [--seeds-sphere 5] [--json FILE] [--plot FILE] [--pictures FILE]

**Cube by random poses** (after the cube sample of nvdiffrast, Laine et al. 2020): the eight vertices of a cube of side 2
start up to 0.5 off in each coordinate, their colors at random; each step renders true and present cube in four new poses
at 4, 8 or 16 pixels a side by the same method, and Adam lowers the mean squared difference. The rate falls from 1e-2 to
1e-4 over 600 steps. Told is the mean distance of the vertices from the true ones.

**Sphere to cube**: a sphere of radius .6 with the faces of a subdivided cube, turned at random against the target, a cube
of side .9. Eight lit views around it at elevations 20 and -20 degrees, sum of squared differences from a render of the
true cube with 4 x 4 samples a pixel, 200 steps of AdamUniform on large-steps parameters. Told is the Chamfer distance
(sum of the two mean distances) between 45,000 samples of the mesh and of the true cube; two sets of samples of the true
cube itself are as far apart as told on the first line.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
import trimesh
from scipy.spatial import cKDTree
from torch import Tensor

from backend.cameras import Cameras
from backend.rendering import (
    Topology,
    antialias,
    build_topology,
    edge_gradient,
    headlight,
    interpolate,
    rasterize,
    shade,
    to_clip_space,
    vertex_normals,
)
from backend.representations.large_steps import AdamUniform, Preconditioner, unique_edges
from backend.representations.primitives import cube
from benchmarks.by_triangle import antialias_by_triangle, opposite_corners

MODES = ("edge-driven", "by triangle", "edge-gradient")
POSE_STEPS, POSES = 600, 4
SPHERE_CASES = ((8, 128, 1e-2, 1.0), (20, 64, 3e-2, 5.0))
"""Divisions of the cube (12 n^2 faces), pixels, rate, and smoothing of the parametrization."""
SPHERE_STEPS, SPHERE_VIEWS, SAMPLES, SIDE = 200, 8, 45_000, 0.9


class Edges:
    """What the modes need to know of a mesh's faces."""

    def __init__(self, faces: Tensor) -> None:
        self.faces = faces
        self.topology: Topology = build_topology(faces)
        self.opposite = opposite_corners(faces)

    def finish(self, image: Tensor, fragments, clip: Tensor, mode: str) -> Tensor:
        if mode == "edge-driven":
            return antialias(image, fragments, clip, self.faces, self.topology)
        if mode == "by triangle":
            return antialias_by_triangle(image, fragments, clip, self.faces, self.opposite)
        return edge_gradient(image, fragments, clip, self.faces)


def random_poses(count: int, generator: torch.Generator) -> Tensor:
    """`[N, 4, 4]`: uniform rotations, 3.5 in front of a camera whose image spans .8 at distance 1."""
    x, y, z, w = torch.nn.functional.normalize(torch.randn(4, count, generator=generator), dim=0)
    rotation = torch.stack(
        [
            1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
            2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
            2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
        ],
        dim=-1,
    ).view(-1, 3, 3)  # fmt: skip
    model = torch.eye(4).repeat(count, 1, 1)
    model[:, :3, :3] = rotation
    model[:, 2, 3] = -3.5
    near, far = 1.0, 50.0
    projection = torch.tensor(
        [
            [2.5, 0, 0, 0],
            [0, 2.5, 0, 0],
            [0, 0, -(far + near) / (far - near), -2 * far * near / (far - near)],
            [0, 0, -1, 0],
        ]
    )
    return projection @ model


def fit_cube(mode: str, size: int, seed: int) -> float:
    """Mean distance of the vertices from the true ones."""
    generator = torch.Generator().manual_seed(seed)
    mesh = cube(1, 3.0**0.5)
    truth, faces = torch.tensor(mesh.positions), torch.tensor(mesh.faces)
    edges = Edges(faces)
    true_colors = torch.rand(8, 3, generator=generator)
    vertices = (truth + torch.rand(8, 3, generator=generator) - 0.5).requires_grad_()
    colors = torch.rand(8, 3, generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([vertices, colors], lr=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 10.0 ** (-2.0 * step / POSE_STEPS))

    def picture(vertices: Tensor, colors: Tensor, poses: Tensor) -> Tensor:
        clip = to_clip_space(vertices, poses)
        fragments = rasterize(clip, faces, size, size)
        return edges.finish(interpolate(colors, fragments, faces), fragments, clip, mode)

    for _ in range(POSE_STEPS):
        poses = random_poses(POSES, generator)
        with torch.no_grad():
            target = picture(truth, true_colors, poses)
        loss = (picture(vertices, colors, poses) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return float((vertices.detach() - truth).norm(dim=1).mean())


def fit_sphere(mode: str, case: tuple[int, int, float, float], seed: int) -> tuple[float, Tensor, Edges]:
    """Chamfer distance to the cube, the vertices, and their faces."""
    divisions, size, rate, smoothing = case
    generator = torch.Generator().manual_seed(seed)
    mesh = cube(divisions, 1.0)
    turn = random_poses(1, generator)
    rotation = torch.linalg.qr(turn[0, :3, :3])[0]
    start = 0.6 * torch.nn.functional.normalize(torch.tensor(mesh.positions), dim=1) @ (rotation * rotation.det())
    edges = Edges(torch.tensor(mesh.faces))
    pairs = unique_edges(edges.faces)
    preconditioner = Preconditioner(len(start), pairs, smoothing)
    difference = smoothing * (start[pairs[:, 0]] - start[pairs[:, 1]])
    parameters = start.index_add(0, pairs[:, 0], difference).index_add(0, pairs[:, 1], -difference).requires_grad_()
    azimuths = torch.arange(SPHERE_VIEWS) * (360.0 / SPHERE_VIEWS) + 45.0 * float(torch.rand(1, generator=generator))
    cameras = Cameras.orbit(azimuths, [20.0, -20.0] * (SPHERE_VIEWS // 2))
    target = true_cube(cameras, size)
    optimizer = AdamUniform([parameters], rate)
    for _ in range(SPHERE_STEPS):
        vertices = preconditioner.smooth(parameters)
        clip = to_clip_space(vertices, cameras.clip_matrix())
        fragments = rasterize(clip, edges.faces, size, size)
        image = lit(vertices, edges.faces, fragments, cameras)
        loss = (edges.finish(image, fragments, clip, mode) - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    vertices = preconditioner.smooth(parameters).detach()
    return chamfer(trimesh.Trimesh(vertices.numpy(), edges.faces.numpy(), process=False), seed), vertices, edges


def lit(vertices: Tensor, faces: Tensor, fragments, cameras: Cameras) -> Tensor:
    gray = torch.full_like(vertices, 0.8)
    return shade(gray, vertex_normals(vertices, faces), fragments, faces, headlight(cameras), "lit")


@torch.no_grad()
def true_cube(cameras: Cameras, size: int) -> Tensor:
    """Its pictures, each side flat, with 4 x 4 samples a pixel."""
    mesh = cube(1, SIDE / 2 * 3.0**0.5)
    vertices = torch.tensor(mesh.positions[mesh.faces].reshape(-1, 3))
    faces = torch.arange(len(vertices), dtype=torch.int32).view(-1, 3)
    clip = to_clip_space(vertices, cameras.clip_matrix())
    image = lit(vertices, faces, rasterize(clip, faces, 4 * size, 4 * size), cameras)
    return torch.nn.functional.avg_pool2d(image.permute(0, 3, 1, 2), 4).permute(0, 2, 3, 1)


def chamfer(mesh: trimesh.Trimesh, seed: int) -> float:
    box = trimesh.creation.box((SIDE, SIDE, SIDE))
    ours, true = (trimesh.sample.sample_surface(one, SAMPLES, seed=seed + i)[0] for i, one in enumerate((mesh, box)))
    return float(np.mean(cKDTree(true).query(ours)[0]) + np.mean(cKDTree(ours).query(true)[0]))


def repeat(work: Callable[[int], float], seeds: int) -> dict[str, float | list[float]]:
    values = [work(seed) for seed in range(seeds)]
    return {"mean": mean(values), "deviation": stdev(values) if seeds > 1 else math.nan, "values": values}


def bench(cube_seeds: int, sphere_seeds: int) -> tuple[dict, list]:
    floor = chamfer(trimesh.creation.box((SIDE, SIDE, SIDE)), 100)
    print(f"Chamfer distance of two samplings of the true cube: {floor:.4f}", flush=True)
    result: dict = {"floor": floor, "cube": {}, "sphere": {}}
    shown = []
    for case in SPHERE_CASES if sphere_seeds else ():
        name = f"{12 * case[0] ** 2} faces at {case[1]} px"
        for mode in MODES:
            meshes = {}

            def distance(seed: int) -> float:
                found, vertices, edges = fit_sphere(mode, case, seed)
                meshes[seed] = (vertices, edges)
                return found

            result["sphere"][f"{name}, {mode}"] = found = repeat(distance, sphere_seeds)
            shown.append((f"{name}\n{mode}", *meshes[0]))
            print(f"sphere to cube, {name:<20}{mode:<16}{found['mean']:.4f} +- {found['deviation']:.4f}", flush=True)
    for size in (4, 8, 16) if cube_seeds else ():
        for mode in MODES:
            found = repeat(lambda seed: fit_cube(mode, size, seed), cube_seeds)
            result["cube"][f"{size} px, {mode}"] = found
            print(f"cube by poses, {size:>2} px  {mode:<16}{found['mean']:.5f} +- {found['deviation']:.5f}", flush=True)
    return result, shown


def plot(result: dict, file: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.6))
    for axis, table, label in ((axes[0], result["cube"], "vertex error"), (axes[1], result["sphere"], "Chamfer distance")):
        names = list(dict.fromkeys(key.rsplit(", ", 1)[0] for key in table))
        for offset, (mode, color) in enumerate(zip(MODES, ("C0", "C3", "C1"))):
            for place, name in enumerate(names):
                values = table[f"{name}, {mode}"]["values"]
                where = [place + 0.2 * (offset - 1)] * len(values)
                axis.plot(where, values, "o", color=color, markersize=4, label=mode if place == 0 else None)
        axis.set_xticks(range(len(names)), names)
        axis.set_yscale("log")
        axis.set_ylabel(label)
    axes[1].axhline(result["floor"], color="0.6", linestyle="--", linewidth=1)
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def pictures(shown: list, file: Path) -> None:
    """The fitted spheres of the first seed, under a light at the camera."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(shown), figsize=(2.4 * len(shown), 2.8))
    cameras = Cameras.orbit([30.0], 25.0)
    for axis, (name, vertices, edges) in zip(axes, shown):
        corners = vertices[edges.faces.long()].reshape(-1, 3)
        faces = torch.arange(len(corners), dtype=torch.int32).view(-1, 3)
        clip = to_clip_space(corners, cameras.clip_matrix())
        image = lit(corners, faces, rasterize(clip, faces, 600, 600), cameras)
        axis.imshow((image[0, ..., :3] + 1 - image[0, ..., 3:]).clamp(0, 1).numpy())
        axis.set_title(name, fontsize=8)
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit meshes with each kind of silhouettes.")
    parser.add_argument("--seeds-cube", type=int, default=8, help="0 leaves this part out")
    parser.add_argument("--seeds-sphere", type=int, default=5, help="0 leaves this part out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the errors here")
    parser.add_argument("--pictures", type=Path, metavar="FILE", help="draw the fitted spheres here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    import matplotlib

    matplotlib.use("Agg")
    result, shown = bench(arguments.seeds_cube, arguments.seeds_sphere)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.plot:
        plot(result, arguments.plot)
    if arguments.pictures:
        pictures(shown, arguments.pictures)


if __name__ == "__main__":
    main()
