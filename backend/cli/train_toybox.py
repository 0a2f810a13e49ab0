"""`galatea train-toybox`: render the training data, train the embedded prior, save it, draw its loss and samples."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, help="model folder to write (default: backend/toybox/weights)")
    parser.add_argument("--state", type=Path, help="folder of data and training state (default: the user's cache folder)")
    parser.add_argument("--objects", type=int, default=24_000, help="random objects to train on (default: 24000)")
    parser.add_argument("--template-steps", type=int, default=5000, help="steps of the 3D template (default: 5000)")
    parser.add_argument("--pictures-steps", type=int, default=2500, help="steps of the picture encoder (default: 2500)")
    parser.add_argument("--unet-steps", type=int, default=5000, help="steps of the denoiser (default: 5000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")


def run(arguments: argparse.Namespace) -> int:
    from backend.cli.train_toybox_job import train_toybox

    return train_toybox(arguments)
