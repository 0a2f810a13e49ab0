"""`galatea stability PROMPT --seeds N`: the same job by several seeds, and how far their results agree.

Each seed is a whole job in a folder of its own, `seed-K`; those that are finished are kept, those that were interrupted are
gone on with. Beside them come `stability.html` and `stability.json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from backend.cli import generate
from backend.cli.output_folder import REPORT_FILE, default_output
from backend.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    generate.add_arguments(parser)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="how many seeds, from --seed on (default 3)")


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError for what the user can mend."""
    from backend.cli.stability_page import compare

    if arguments.prompt is None:
        raise InputError("stability needs a prompt; the folders of its seeds follow from it.")
    if not 2 <= arguments.seeds <= 32:
        raise InputError(f"--seeds is {arguments.seeds}; give a number from 2 to 32.")
    first = arguments.seed or 0
    own = default_output(arguments.prompt, first)
    top = arguments.output or own.with_name(f"{own.name}-seeds")
    folders = []
    for seed in range(first, first + arguments.seeds):
        folder = top / f"seed-{seed}"
        folders.append(folder)
        if (folder / REPORT_FILE).exists() and not (folder / "job").exists():
            _check_same(folder, arguments.prompt, seed)
            continue
        top.mkdir(parents=True, exist_ok=True)
        resume = (folder / "job" / "job.json").exists()
        code = generate.run(argparse.Namespace(**{**vars(arguments), "seed": seed, "output": folder, "resume": resume}))
        if code:
            return code
    print(compare(top, folders))
    return 0


def _check_same(folder: Path, prompt: str, seed: int) -> None:
    """Raises InputError if the finished job in `folder` was another."""
    settings = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))["settings"]
    if settings["prompt"] != prompt.strip() or settings["seed"] != seed:
        raise InputError(f"{folder} holds “{settings['prompt']}” by seed {settings['seed']}; name another folder with --output.")
