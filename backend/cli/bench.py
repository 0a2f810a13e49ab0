"""`galatea bench`: how long rendering and the parts of an optimization step take on this machine.

`bench render` needs no more than torch and Warp (matplotlib and the rest of Galatea may be missing), so that a rented
GPU machine can run it from a bare checkout: `python3 -m backend.cli bench render --json table.json --plot table.svg`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from backend.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        nargs="?",
        choices=["render", "step"],
        default="step",
        help="render: the renderer alone, by faces, resolution and views, beside every other differentiable rasterizer that can be "
        "imported; step: the parts of an optimization step (default)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table here as well")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (default 1)")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: the GPU if there is one")
    render = parser.add_argument_group("render")
    render.add_argument("--plot", type=Path, metavar="FILE", help="draw it here as well, as SVG")
    render.add_argument("--quick", action="store_true", help="small meshes and pictures only")
    step = parser.add_argument_group("step")
    step.add_argument("--views", type=int, default=4, metavar="N", help="pictures in a step (default 4)")
    step.add_argument("--resolution", type=int, default=32, metavar="N", help="pixels along an edge (default 32)")
    step.add_argument("--repeats", type=int, default=50, metavar="N", help="steps to take the median of (default 50)")
    step.add_argument("--prior", metavar="NAME", help="time a prior as well: toybox, a model folder or a hub id")


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError for numbers below 1, a device that is not there, and files that cannot be written."""
    import torch

    for name in ("views", "resolution", "threads", "repeats"):
        if getattr(arguments, name) < 1:
            raise InputError(f"--{name} is {getattr(arguments, name)}; it must be 1 or more.")
    for path in (arguments.json, arguments.plot):
        if path is not None and not path.parent.is_dir():
            raise InputError(f"There is no folder {path.parent}; make it first.")
    available = torch.cuda.is_available()
    if arguments.device == "cuda" and not available:
        raise InputError("--device is cuda, but torch finds no CUDA device here; leave the option away.")
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device or ("cuda" if available else "cpu"))
    text, table = _render(arguments, device) if arguments.what == "render" else _step(arguments, device)
    print(text)
    if arguments.json:
        _write(arguments.json, json.dumps(table, indent=1) + "\n")
    return 0


def _render(arguments: argparse.Namespace, device) -> tuple[str, dict]:
    from backend.benchmark.render_report import as_svg, as_text
    from backend.benchmark.render_table import bench_render

    def progress(what: str, done: int, parts: int) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{done}/{parts} measured; now {what}", end="", file=sys.stderr, flush=True)

    table = bench_render(device, arguments.quick, progress)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    if arguments.plot:
        _write(arguments.plot, as_svg(table))
    return as_text(table), table


def _step(arguments: argparse.Namespace, device) -> tuple[str, dict]:
    from backend.cli.bench_step import as_text, measure, time_prior

    table = measure(arguments.views, arguments.resolution, arguments.repeats, device)
    if arguments.prior:
        table[f"prior {arguments.prior}"] = time_prior(arguments.prior, arguments.repeats, device)
    return as_text(table), table


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error
