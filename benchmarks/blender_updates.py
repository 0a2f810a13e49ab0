"""How long Blender's main thread is held by an update of a preview, by vertices, against the targets; redraw apart.

    python -m benchmarks.blender_updates [--blender PYTHON ...]

PYTHON is one that has the bpy module; by default those that the tests in Blender have made in the cache folder. Times
are milliseconds: on the clock (median and worst of many) and of the thread's processor time (worst). A target is met if
the worst processor time is below it: that is the same as the clock on an idle machine, and true on a busy one. The view layer is
updated between two updates, as a redraw would, outside of what is timed. "(thread)" is what the client's thread does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
JOB = "0123456789abcdef0123456789abcdef"
SIZES = {"20k": (141, 142), "100k": (316, 317)}
TARGETS = {("same topology", "100k"): 4.0, ("new topology", "20k"): 16.0, ("new topology", "100k"): 50.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--blender", action="append", type=Path, metavar="PYTHON", help="repeatable")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        measure_inside()
        return
    pythons = arguments.blender or made_by_the_tests()
    if not pythons:
        parser.error("no Python with the bpy module is known: name one with --blender, or run the tests in Blender once")
    for python in pythons:
        run_in(python)


def made_by_the_tests() -> list[Path]:
    from backend.cache_folder import cache_folder

    name = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    return sorted(path / name for path in (cache_folder() / "blender").glob("bpy-*") if (path / "complete.json").exists())


def run_in(python: Path) -> None:
    """This file again in that Python, with the bridge as part of a package, as in the extension."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "galatea"
        shutil.copytree(ROOT / "blender_addon" / "bridge", package / "bridge")
        (package / "__init__.py").touch()
        environment = os.environ | {"PYTHONPATH": folder, "BLENDER_USER_RESOURCES": folder, "OMP_NUM_THREADS": "1"}
        subprocess.run([str(python), __file__, "--inside"], env=environment, cwd=folder, check=True, timeout=600)


class Arrived:
    """What the bridge reads of a snapshot or result."""

    def __init__(self, positions: np.ndarray, faces: np.ndarray | None, colors: np.ndarray | None) -> None:
        self.positions, self.faces, self.colors = positions, faces, colors
        self.mesh = self


def torus(around: int, across: int, seed: int) -> Arrived:
    """around * across vertices within the unit sphere, twice as many faces, noise in place of an optimizer."""
    rng = np.random.default_rng(seed)
    u, v = np.meshgrid(np.arange(around) * 2 * np.pi / around, np.arange(across) * 2 * np.pi / across, indexing="ij")
    radius = 0.6 + 0.3 * np.cos(v)
    points = np.stack([radius * np.cos(u), 0.3 * np.sin(v), radius * np.sin(u)], axis=-1).reshape(-1, 3)
    points += rng.normal(scale=1e-3, size=points.shape)
    index = np.arange(around * across).reshape(around, across)
    a, b = index, np.roll(index, -1, axis=0)
    c, d = np.roll(b, -1, axis=1), np.roll(a, -1, axis=1)
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    rng.shuffle(faces)  # other faces for every seed
    return Arrived(points.astype(np.float32), faces.astype(np.int32), rng.random(points.shape).astype(np.float32))


class Times:
    """Of one thing, done again and again: milliseconds on the clock, and of processor time."""

    def __init__(self) -> None:
        self.clock: list[float] = []
        self.processor: list[float] = []

    def take(self, action: Callable[[], Any]) -> Any:
        start, used = time.perf_counter(), time.thread_time()
        result = action()
        self.processor.append((time.thread_time() - used) * 1e3)
        self.clock.append((time.perf_counter() - start) * 1e3)
        return result

    def meet(self, target: float) -> bool:
        return max(self.processor) <= target


def measure_inside() -> None:
    import bpy

    print(f"\nBlender {bpy.app.version_string}, Python {sys.version.split()[0]}, NumPy {np.__version__}")
    print(f"{'what':<34}{'vertices':>9}{'median':>9}{'worst':>9}{'cpu':>9}{'target':>9}")
    for size, (around, across) in SIZES.items():
        bpy.ops.wm.read_factory_settings(use_empty=True)
        for what, times in (measure_generate(around, across) | measure_refine(around, across)).items():
            target = TARGETS.get((what, size))
            verdict = "" if target is None else f"{target:9.0f}  {'met' if times.meet(target) else 'MISSED'}"
            figures = (median(times.clock), max(times.clock), max(times.processor))
            print(f"{what:<34}{size:>9}" + "".join(f"{figure:9.2f}" for figure in figures) + verdict, flush=True)
    sys.stdout.flush()
    os._exit(0)  # Blender's own end can take seconds


def measure_generate(around: int, across: int) -> dict[str, Times]:
    import bpy
    from galatea.bridge import preview
    from galatea.bridge.placement import default_placement
    from galatea.bridge.prepare import prepare

    placement = default_placement()
    live = preview.begin(bpy.context, JOB, "benchmark", None, placement)
    times: dict[str, Times] = defaultdict(Times)
    for round in range(12):
        arrived = torus(around, across, round)
        times["prepare new topology (thread)"].take(lambda: prepare(placement, arrived))
        ready = times["prepare same topology (thread)"].take(lambda: prepare(placement, arrived))
        times["new topology"].take(lambda: preview.apply(live, ready))
        bpy.context.view_layer.update()
        for _ in range(3):
            times["same topology"].take(lambda: preview.apply(live, ready))
            times["view layer update after it"].take(bpy.context.view_layer.update)
    bpy.data.objects.remove(live)
    return times


def measure_refine(around: int, across: int) -> dict[str, Times]:
    import bpy
    from galatea.bridge import finish, preview
    from galatea.bridge.geometry import read_positions
    from galatea.bridge.placement import placement_of
    from galatea.bridge.prepare import prepare

    shape = torus(around, across, 0)
    mesh = bpy.data.meshes.new("benchmark")
    mesh.from_pydata(shape.positions.tolist(), [], shape.faces.tolist())
    original = bpy.data.objects.new("benchmark", mesh)
    bpy.context.collection.objects.link(original)
    times: dict[str, Times] = defaultdict(Times)
    for _ in range(5):
        placement = placement_of(original, read_positions(original.data))
        live = times["begin refining"].take(lambda: preview.begin(bpy.context, JOB, "benchmark", original, placement))
        arrived = Arrived(placement.to_wire(placement.original) * np.float32(0.99), None, shape.colors)
        ready = times["prepare refined (thread)"].take(lambda: prepare(placement, arrived))
        bpy.context.view_layer.update()
        preview.apply(live, ready)
        bpy.context.view_layer.update()
        times["refined"].take(lambda: preview.apply(live, ready))
        times["accept"].take(lambda: finish.accept(bpy.context, live, arrived))
        bpy.context.view_layer.update()
    return times


if __name__ == "__main__":
    main()
