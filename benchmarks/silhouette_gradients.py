"""Are vertex gradients right? Against finite differences of a supersampled render, for each kind of silhouettes.

    python -m benchmarks.silhouette_gradients [--full] [--json FILE] [--plot FILE]

A loss is a linear functional of the image: smooth random weights on coverage ("mask") or on the three color channels.
Its derivative along smooth displacements of the vertices is measured by central differences of a render with 16 x 16
samples a pixel (8 x 8 at 256 pixels without --full), and predicted by the gradient of the plain render. The slope is that
of the least-squares line through the origin over 12 displacements of 1e-3 of the object's size, each with its own weights
and in its own random views (four at 64 pixels, one at 256): 1 is right, .9 means that a tenth of the gradient is missing.
One set of four views alone scatters by about .03 with colors, since plain renders take one sample a pixel.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from backend.cameras import Cameras
from backend.rendering import (
    antialias,
    build_topology,
    edge_gradient,
    headlight,
    rasterize,
    shade,
    to_clip_space,
    vertex_normals,
)
from backend.representations.primitives import cube, icosphere
from benchmarks.by_triangle import antialias_by_triangle, opposite_corners

SAMPLES = 16
STEP = 1e-3
DIRECTIONS = 12
MODES = ("edge-driven", "edge-gradient", "by triangle")
LOSSES = ("mask", "albedo", "lit")


def shapes(full: bool) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, vertices within a sphere of radius .8 or .9, and faces."""
    for divisions in (4, 8, 20, 41) if full else (4, 20):
        mesh = cube(divisions, 0.9)
        yield "cube", torch.tensor(mesh.positions), torch.tensor(mesh.faces)
    for level in (2, 3, 4, 5) if full else (2, 4, 5):
        mesh = icosphere(level, 0.8)
        yield "sphere", torch.tensor(mesh.positions), torch.tensor(mesh.faces)
    for sides in (10, 16, 34, 70) if full else (16, 70):
        yield "torus", *torus(sides)


def torus(sides: int) -> tuple[Tensor, Tensor]:
    """A ring of 2 `sides` by `sides` quads, two triangles each."""
    around, across = torch.meshgrid(torch.arange(2 * sides), torch.arange(sides), indexing="ij")
    long, short = (2 * torch.pi / n * grid for n, grid in ((2 * sides, around), (sides, across)))
    radius = 0.58 + 0.22 * torch.cos(short)
    vertices = torch.stack([radius * torch.cos(long), 0.22 * torch.sin(short), radius * torch.sin(long)], dim=-1)

    def corner(i: int, j: int) -> Tensor:
        return ((around + i) % (2 * sides)) * sides + (across + j) % sides

    halves = [torch.stack([corner(*c) for c in t], dim=-1) for t in (((0, 0), (0, 1), (1, 1)), ((0, 0), (1, 1), (1, 0)))]
    return vertices.reshape(-1, 3), torch.cat(halves).reshape(-1, 3).int()


class Scene:
    """A shape before random cameras, with weights on the pixels that make the image a number, and a displacement."""

    def __init__(self, vertices: Tensor, faces: Tensor, size: int, views: int, seed: int) -> None:
        self.vertices, self.faces, self.size = vertices, faces, size
        self.topology, self.opposite = build_topology(faces), opposite_corners(faces)
        self.colors = 0.5 + 0.5 * torch.sin(4.0 * vertices)
        generator = torch.Generator().manual_seed(seed)
        azimuths, elevations = torch.rand(2, views, generator=generator)
        self.cameras = Cameras.orbit(360.0 * azimuths, 90.0 * elevations - 30.0)
        ticks = (torch.arange(size) + 0.5) * (2.0 / size) - 1.0
        y, x = torch.meshgrid(ticks, ticks, indexing="ij")
        wave = torch.randn(3, views, 1, 1, 3, generator=generator)
        self.weights = torch.sin(1.5 * (wave[0] * x[..., None] + wave[1] * y[..., None]) + 3.0 * wave[2])
        linear, wave, phase = (torch.randn(3, n, generator=generator).squeeze(1) for n in (3, 3, 1))
        self.displacement = 0.5 * vertices @ linear + torch.sin(1.5 * vertices @ wave + phase)

    def image(self, vertices: Tensor, mode: str, samples: int = 1) -> Tensor:
        """`[N, H, W, 7]`: coverage, albedo and lit color, averaged over `samples` x `samples` to a pixel."""
        return torch.cat([self.view(vertices, self.cameras[view], mode, samples) for view in range(len(self.cameras))])

    def view(self, vertices: Tensor, cameras: Cameras, mode: str, samples: int) -> Tensor:
        clip = to_clip_space(vertices, cameras.clip_matrix())
        fragments = rasterize(clip, self.faces, self.size * samples, self.size * samples)
        normals = vertex_normals(vertices, self.faces)
        kinds = [
            shade(self.colors, normals, fragments, self.faces, headlight(cameras), kind) for kind in ("albedo", "lit")
        ]
        image = torch.cat([kinds[0][..., 3:], *(kind[..., :3] for kind in kinds)], dim=-1)
        if mode == "edge-driven":
            image = antialias(image, fragments, clip, self.faces, self.topology)
        elif mode == "edge-gradient":
            image = edge_gradient(image, fragments, clip, self.faces)
        else:
            image = antialias_by_triangle(image, fragments, clip, self.faces, self.opposite)
        return torch.nn.functional.avg_pool2d(image.permute(0, 3, 1, 2), samples).permute(0, 2, 3, 1)

    def losses(self, image: Tensor) -> Tensor:
        """`[3]`, in the order of `LOSSES`."""
        weighted = image.double() * torch.cat([self.weights[..., :1], self.weights, self.weights], dim=-1)
        return torch.stack([part.sum() for part in weighted.split((1, 3, 3), dim=-1)])


def slopes(vertices: Tensor, faces: Tensor, size: int, views: int, samples: int) -> dict[tuple[str, str], list[float]]:
    """(slope, cosine) for each loss and mode."""
    measured, predicted = [], {mode: [] for mode in MODES}
    for seed in range(DIRECTIONS):
        scene = Scene(vertices, faces, size, views, seed)
        with torch.no_grad():
            # Antialiased, which at 16 samples a side tells apart movements smaller than a sample's width.
            ahead, behind = (
                scene.losses(scene.image(vertices + sign * STEP * scene.displacement, "edge-driven", samples))
                for sign in (1, -1)
            )
        measured.append((ahead - behind) / (2 * STEP))
        for mode in MODES:
            start = vertices.clone().requires_grad_()
            values = scene.losses(scene.image(start, mode))
            gradients = [torch.autograd.grad(value, start, retain_graph=True)[0] for value in values]
            predicted[mode].append(torch.stack([(one * scene.displacement).double().sum() for one in gradients]))
    truth = torch.stack(measured)
    results = {}
    for mode in MODES:
        found = torch.stack(predicted[mode])
        slope = (found * truth).sum(0) / truth.square().sum(0)
        cosine = torch.nn.functional.cosine_similarity(found, truth, dim=0)
        for i, loss in enumerate(LOSSES):
            results[loss, mode] = [float(slope[i]), float(cosine[i])]
    return results


def table(full: bool) -> list[dict]:
    result = []
    for size in (64, 256):
        for name, vertices, faces in shapes(full):
            views, samples = (4, SAMPLES) if size == 64 else (1, SAMPLES if full else SAMPLES // 2)
            found = slopes(vertices, faces, size, views, samples)
            row = {"shape": name, "faces": len(faces), "size": size, "samples": samples}
            row |= {f"{loss}, {mode}": [round(n, 3) for n in found[loss, mode]] for loss in LOSSES for mode in MODES}
            result.append(row)
            print(as_line(row), flush=True)
    return result


def as_line(row: dict) -> str:
    figures = "".join(f"{row[f'{loss}, {mode}'][0]:>9.3f}" for mode in MODES for loss in LOSSES)
    return f"{row['shape']:<8}{row['faces']:>7}{row['size']:>6}{figures}"


def heading() -> str:
    top = " " * 21 + "".join(f"{mode:>27}" for mode in MODES)
    return f"{top}\n{'shape':<8}{'faces':>7}{'size':>6}" + "".join(f"{loss:>9}" for _ in MODES for loss in LOSSES)


def plot(result: list[dict], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(12, 6.5), sharex=True, sharey=True)
    for axis_row, size in zip(axes, (64, 256)):
        for axis, loss in zip(axis_row, LOSSES):
            axis.axhspan(0.95, 1.05, color="0.9")
            for mode, color in zip(MODES, ("C0", "C1", "C3")):
                for shape, marker in (("cube", "s"), ("sphere", "o"), ("torus", "^")):
                    rows = [row for row in result if row["size"] == size and row["shape"] == shape]
                    label = f"{mode}, {shape}" if shape == "sphere" else None
                    points = [row["faces"] for row in rows], [row[f"{loss}, {mode}"][0] for row in rows]
                    axis.plot(*points, color=color, marker=marker, linewidth=1, markersize=4, label=label)
            axis.set_xscale("log")
            axis.set_title(f"{loss}, {size} px")
    axes[0, 0].legend(fontsize=7)
    axes[0, 0].set_ylabel("slope (1 is right)")
    axes[1, 1].set_xlabel("faces (squares: cube, circles: sphere, triangles: torus)")
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description="Vertex gradients against finite differences.")
    parser.add_argument("--full", action="store_true", help="more sizes of meshes, and 16 samples at 256 pixels too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table here as well")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the slopes here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(heading())
    result = table(arguments.full)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.plot:
        plot(result, arguments.plot)


if __name__ == "__main__":
    main()
