"""The rendering benchmark: milliseconds and memory by faces, resolution and views, and by operator, as one table."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from backend.benchmark.contestants import Contestant, contestants
from backend.benchmark.device_agreement import disagreement
from backend.benchmark.scene import Scene, orbit, sphere
from backend.benchmark.timing import milliseconds, peak_megabytes
from backend.rendering import (
    antialias,
    build_topology,
    headlight,
    interpolate,
    rasterize,
    render_mesh,
    shade,
    to_clip_space,
    vertex_normals,
)


class Case(NamedTuple):
    faces: int
    resolution: int
    views: int


QUICK = [Case(5_000, 64, 4), Case(20_000, 64, 4), Case(20_000, 256, 4)]
CASES = [
    Case(1_000, 64, 4),
    *QUICK,
    Case(20_000, 256, 1),
    Case(20_000, 256, 16),
    Case(5_000, 512, 4),
    Case(100_000, 512, 4),
    Case(500_000, 512, 4),
    Case(500_000, 1024, 4),
]
OPERATOR_CASE = Case(20_000, 256, 4)

Progress = Callable[[str, int, int], None]
"""Told what is measured next, and how many of how many parts are done."""


def bench_render(device: torch.device, quick: bool, progress: Progress) -> dict:
    """All figures as one table for JSON; about two minutes on a CPU, a quarter of that if `quick`."""
    cases = QUICK if quick else CASES
    seconds = 1.0 if quick else 4.0
    present, absent = contestants(device)
    time_case(Case(80, 16, 1), present, device, 0.0)  # kernels are loaded here, not where memory is measured
    rows = []
    for number, case in enumerate(cases):
        progress(f"{case.faces:,} faces at {case.resolution} px, {case.views} views", number, len(cases) + 1)
        rows.append(time_case(case, present, device, seconds))
    progress("operators", len(cases), len(cases) + 1)
    table = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "clock": "processor time of one thread" if device.type == "cpu" else "on the clock, synchronized",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "contestants": {contestant.name: contestant.how for contestant in present},
        "absent": absent,
        "renders": rows,
        "operators": {
            "case": OPERATOR_CASE._asdict(),
            "milliseconds": time_operators(OPERATOR_CASE, device, seconds),
        },
    }
    return table if device.type == "cpu" else table | {"disagreement_with_cpu": disagreement(device)}


def time_case(case: Case, present: list[Contestant], device: torch.device, seconds: float) -> dict:
    """Every contestant on one case: forward, forward with backward, ratio to ours, memory, agreement with our picture."""
    scene = sphere(case.faces, device)
    clip = to_clip_space(scene.vertices, orbit(case.views, device).clip_matrix()).detach()
    inputs = [clip.requires_grad_(), scene.colors.detach().clone().requires_grad_()]
    shape = (case.views, case.resolution, case.resolution, 4)
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device) / case.resolution
    work = len(scene.faces) * case.views * case.resolution**2
    able = [contestant for contestant in present if work <= contestant.most_work]
    draws = [contestant.draw(scene, case.resolution) for contestant in able]

    def forward(draw: Callable) -> None:
        with torch.no_grad():
            draw(*inputs)

    def both(draw: Callable) -> None:
        torch.autograd.grad(draw(*inputs), inputs, gradient)

    memory = [peak_megabytes(lambda draw=draw: both(draw), device) for draw in draws]
    ahead = milliseconds([lambda draw=draw: forward(draw) for draw in draws], device, seconds / 2)
    whole = milliseconds([lambda draw=draw: both(draw) for draw in draws], device, seconds)
    with torch.no_grad():
        masks = [draw(*inputs)[..., 3] > 0.5 for draw in draws]
    figures = {}
    for index, contestant in enumerate(able):
        figures[contestant.name] = {
            "forward_ms": round(ahead[index], 3),
            "forward_backward_ms": round(whole[index], 3),
            "ratio": round(whole[index] / whole[0], 2),
            "peak_mb": None if memory[index] is None else round(memory[index], 1),
            "agrees": round(float((masks[index] == masks[0]).float().mean()), 4),
        }
    return {**case._asdict(), "faces": len(scene.faces), "results": figures}


def time_operators(case: Case, device: torch.device, seconds: float) -> dict[str, dict[str, float]]:
    """Milliseconds of each operator of ours, forward and backward, on the inputs that it has within a render."""
    scene = sphere(case.faces, device)
    table = {}
    for name, forward, inputs in _operators(scene, case, device):
        result = forward()
        gradient = torch.ones_like(result)

        def backward(result: Tensor = result, inputs: list[Tensor] = inputs, gradient: Tensor = gradient) -> None:
            torch.autograd.grad(result, inputs, gradient, retain_graph=True)

        works = [forward, backward] if inputs else [forward]
        spent = [round(lap, 3) for lap in milliseconds(works, device, seconds / 4)]
        table[name] = {"forward_ms": spent[0], "backward_ms": spent[1] if inputs else None}
    return table


def _operators(
    scene: Scene, case: Case, device: torch.device
) -> Iterator[tuple[str, Callable[[], Tensor], list[Tensor]]]:
    """Name, call, and the inputs that it is differentiated by."""
    size = case.resolution
    cameras = orbit(case.views, device)
    vertices, colors = scene.vertices.clone().requires_grad_(), scene.colors.clone().requires_grad_()
    clip = to_clip_space(vertices, cameras.clip_matrix()).detach().requires_grad_()
    fragments = rasterize(clip, scene.faces, size, size)
    normals = vertex_normals(vertices, scene.faces).detach().requires_grad_()
    light = headlight(cameras)
    image = shade(colors, normals, fragments, scene.faces, light, "lit").detach().requires_grad_()
    yield "to_clip_space", lambda: to_clip_space(vertices, cameras.clip_matrix()), [vertices]
    yield "vertex_normals", lambda: vertex_normals(vertices, scene.faces), [vertices]
    yield "rasterize", lambda: rasterize(clip, scene.faces, size, size).barycentrics, [clip]
    barycentrics = fragments.barycentrics
    yield "interpolate", lambda: interpolate(colors, fragments, scene.faces), [colors, barycentrics]
    yield (
        "shade",
        lambda: shade(colors, normals, fragments, scene.faces, light, "lit"),
        [colors, normals, barycentrics],
    )
    yield "antialias", lambda: antialias(image, fragments, clip, scene.faces, scene.topology), [image, clip]
    yield "build_topology", lambda: build_topology(scene.faces).edges, []
    yield (
        "render_mesh, all of it",
        lambda: render_mesh(
            vertices, scene.faces, colors, cameras, size, light=light, topology=scene.topology
        ).rgb,
        [vertices, colors],
    )


def _processor() -> str:
    """The CPU's name as its maker writes it, where the system tells."""
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()
