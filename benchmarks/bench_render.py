"""How long rendering takes on this machine, forward and with its backward pass, by faces, resolution and views.

    python -m benchmarks.bench_render [--device cpu|cuda] [--threads N] [--json FILE] [--full]

Needs only torch and Warp. On the CPU the numbers are milliseconds of processor time of the rendering thread, which
other processes disturb least; on a GPU they are milliseconds on the clock, waiting for the device. All are medians.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from backend.cameras.orbit import Cameras
from backend.rendering import (
    antialias,
    build_topology,
    headlight,
    rasterize,
    render_mesh,
    shade,
    to_clip_space,
    vertex_normals,
)
from backend.rendering.fragments import Topology

CASES = [(4, 32, 4), (4, 64, 4), (4, 128, 4), (5, 64, 4), (5, 256, 4)]
"""Subdivisions of the icosphere (20 * 4^n faces), side of the images, views."""
LARGE_CASES = [(4, 512, 4), (6, 512, 4), (7, 1024, 4), (5, 64, 16)]


@dataclass(frozen=True)
class Object:
    vertices: Tensor
    faces: Tensor
    colors: Tensor
    topology: Topology


def icosphere(level: int, device: torch.device) -> Object:
    """An icosahedron whose faces are split in four `level` times, on a sphere of radius 0.8."""
    golden = (1.0 + math.sqrt(5.0)) / 2.0
    signs = itertools.product((-1.0, 1.0), (-golden, golden))
    points = torch.tensor(
        [turned for a, b in signs for turned in ((0, a, b), (a, b, 0), (b, 0, a))], dtype=torch.float64
    )
    # Its faces are the triples of points that are all one edge (2) apart, wound to face outward.
    near = (torch.cdist(points, points) - 2.0).abs() < 1e-6
    triples = [
        t for t in itertools.combinations(range(12), 3) if all(near[i, j] for i, j in itertools.combinations(t, 2))
    ]
    faces = torch.tensor([t if torch.linalg.det(points[list(t)]) > 0 else t[::-1] for t in triples])
    for _ in range(level):
        sides = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(dim=1).values
        edges, where = sides.unique(dim=0, return_inverse=True)
        a, b, c = (where + len(points)).view(3, -1)
        points = torch.cat([points, points[edges].mean(dim=1)])
        quarters = [(faces[:, 0], a, c), (faces[:, 1], b, a), (faces[:, 2], c, b), (a, b, c)]
        faces = torch.cat([torch.stack(quarter, dim=1) for quarter in quarters])
    vertices = (0.8 * torch.nn.functional.normalize(points, dim=1)).float().to(device)
    faces = faces.int().to(device)
    return Object(vertices, faces, 0.5 * vertices + 0.5, build_topology(faces))


def timed(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median milliseconds of `work`, not counting the first three calls."""
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    spent = []
    for _ in range(repeats + 3):
        start = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        spent.append(1e3 * (clock() - start))
    return median(spent[3:])


def time_case(level: int, resolution: int, views: int, device: torch.device) -> dict[str, float]:
    """Milliseconds of a lit render: forward without gradients, and forward with backward."""
    thing = icosphere(level, device)
    cameras = orbit(views, device)
    light = headlight(cameras)
    inputs = [thing.vertices.clone().requires_grad_(), thing.colors.clone().requires_grad_()]

    def forward() -> Tensor:
        rendered = render_mesh(
            inputs[0], thing.faces, inputs[1], cameras, resolution, light=light, topology=thing.topology
        )
        return torch.cat([rendered.rgb, rendered.alpha], dim=-1)

    @torch.no_grad()
    def forward_only() -> None:
        forward()

    gradient = torch.ones(views, resolution, resolution, 4, device=device)
    repeats = 25 if views * resolution**2 < 200_000 else 7
    return {
        "faces": len(thing.faces),
        "resolution": resolution,
        "views": views,
        "forward_ms": round(timed(forward_only, device, repeats), 3),
        "forward_backward_ms": round(
            timed(lambda: torch.autograd.grad(forward(), inputs, gradient), device, repeats), 3
        ),
    }


def time_operators(level: int, resolution: int, views: int, device: torch.device) -> dict[str, dict[str, float]]:
    """Milliseconds of each operator, forward and backward, on the inputs it has within a lit render."""
    thing = icosphere(level, device)
    cameras = orbit(views, device)
    light = headlight(cameras)
    vertices, colors = thing.vertices.requires_grad_(), thing.colors.requires_grad_()
    clip = to_clip_space(vertices, cameras.clip_matrix())
    fragments = rasterize(clip, thing.faces, resolution, resolution)
    normals = vertex_normals(vertices, thing.faces)
    image = shade(colors, normals, fragments, thing.faces, light, "lit")
    operators: dict[str, tuple[Callable[[], Tensor], list[Tensor]]] = {
        "camera and clip positions": (lambda: to_clip_space(vertices, cameras.clip_matrix()), [vertices]),
        "vertex_normals": (lambda: vertex_normals(vertices, thing.faces), [vertices]),
        "rasterize": (lambda: rasterize(clip, thing.faces, resolution, resolution).barycentrics, [clip]),
        "shade": (
            lambda: shade(colors, normals, fragments, thing.faces, light, "lit"),
            [colors, normals, fragments.barycentrics],
        ),
        "antialias": (lambda: antialias(image, fragments, clip, thing.faces, thing.topology), [image, clip]),
    }
    table = {}
    for name, (work, inputs) in operators.items():
        result = work()
        gradient = torch.ones_like(result)
        back = timed(lambda r=result, i=inputs, g=gradient: torch.autograd.grad(r, i, g, retain_graph=True), device, 25)
        table[name] = {"forward_ms": round(timed(work, device, 25), 3), "backward_ms": round(back, 3)}
    return table


def time_step(device: torch.device, resolution: int = 32, supersample: int = 1) -> float:
    """Milliseconds of a step of four views on 5120 faces: cameras, render, backward, and Adam on positions and colors.

    `galatea bench` adds the regularizers and the preconditioned parameters of the real loop.
    """
    thing = icosphere(4, device)
    parameters = [thing.vertices.clone().requires_grad_(), thing.colors.clone().requires_grad_()]
    optimizer = torch.optim.Adam(parameters, lr=1e-4)
    gradient = 1e-3 * torch.ones(4, resolution, resolution, 4, device=device)
    options = {"topology": thing.topology, "supersample": supersample}

    def step() -> None:
        rendered = render_mesh(parameters[0], thing.faces, parameters[1], orbit(4, device), resolution, **options)
        optimizer.zero_grad(set_to_none=True)
        torch.cat([rendered.rgb, rendered.alpha], dim=-1).backward(gradient)
        optimizer.step()

    return round(timed(step, device, 40), 3)


def orbit(views: int, device: torch.device) -> Cameras:
    return Cameras.orbit(torch.arange(views) * (360.0 / views), 20.0).to(device)


def bench_render(device: torch.device, full: bool = False) -> dict[str, object]:
    """All figures of this module as one table for JSON; `full` adds large meshes and images (about a minute)."""
    cases = CASES + (LARGE_CASES if full else [])
    return {
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine(),
        "clock": "thread processor time" if device.type == "cpu" else "wall clock, synchronized",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "step_32_ms": time_step(device),
        "step_64_ms": time_step(device, 64),
        "step_32_supersampled_ms": time_step(device, 32, 2),
        "operators_5120_faces_64_pixels_4_views": time_operators(4, 64, 4, device),
        "renders": [time_case(*case, device) for case in cases],
    }


def as_text(table: dict) -> str:
    lines = [
        f"{table['device']}, {table['threads']} threads, torch {table['torch']}; milliseconds, {table['clock']}",
        "",
    ]
    lines += [f"{'operator (5120 faces, 64 px, 4 views)':<40}{'forward':>10}{'backward':>10}"]
    for name, row in table["operators_5120_faces_64_pixels_4_views"].items():
        lines.append(f"{name:<40}{row['forward_ms']:>10.2f}{row['backward_ms']:>10.2f}")
    lines += ["", f"{'faces':>8}{'pixels':>8}{'views':>7}{'forward':>10}{'with backward':>15}"]
    for row in table["renders"]:
        sizes = f"{row['faces']:>8}{row['resolution']:>8}{row['views']:>7}"
        lines.append(f"{sizes}{row['forward_ms']:>10.2f}{row['forward_backward_ms']:>15.2f}")
    steps = [(32, "", "step_32_ms"), (64, "", "step_64_ms"), (32, ", supersampled twice", "step_32_supersampled_ms")]
    lines += ["", "step without prior and regularizers (cameras, render, backward, Adam), 5120 faces, 4 views:"]
    lines += [f"  {size} px{how}: {table[key]:.2f}" for size, how, key in steps]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the renderer on this machine.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="torch's CPU threads (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table here as well")
    parser.add_argument("--full", action="store_true", help="large meshes and images as well")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    table = bench_render(torch.device(arguments.device), arguments.full)
    print(as_text(table))
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
