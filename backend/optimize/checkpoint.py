"""A job's state on disk: complete, synced and renamed into place before anybody is told of it.

The file is read with `weights_only`; it holds tensors, numbers and strings. It carries a fingerprint of the settings,
the start mesh and the prior, because a state resumed under others would be a different job.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from backend.errors import InputError
from backend.optimize.control import Aim
from backend.optimize.inputs import Inputs
from protocol.settings import JobSettings

FILE_NAME = "checkpoint.pt"
FORMAT = 5


@dataclass(frozen=True)
class Checkpoint:
    """`step` of the whole job, `stage` and the step within it, seconds spent, the aim, and the states of what learns.

    `population` is the state of the objects that the stage optimizes side by side, and of what they share.
    """

    step: int
    stage: int
    stage_step: int
    seconds: float
    aim: Aim
    population: dict[str, Any]
    generator: torch.Tensor
    diagnostics: dict[str, Any]


def fingerprint(settings: JobSettings, inputs: Inputs, prior_name: str) -> str:
    """What must be the same for a checkpoint to be continued. How often it is saved may change."""
    settings = msgspec.structs.replace(settings, checkpoint_seconds=1.0, preview_seconds=1.0)
    digest = hashlib.sha256(msgspec.json.encode(settings, order="deterministic"))
    digest.update(prior_name.encode())
    for value in _arrays(inputs):
        digest.update(repr(value.shape if isinstance(value, np.ndarray) else value).encode())
        digest.update(value.tobytes() if isinstance(value, np.ndarray) else b"")
    return digest.hexdigest()


def _arrays(inputs: Inputs) -> Iterator[object]:
    """All that the inputs hold, in a fixed order: arrays, and None where there is none."""
    if inputs.mesh is not None:
        material = () if inputs.mesh.material is None else vars(inputs.mesh.material).values()
        yield from (part for name, part in vars(inputs.mesh).items() if name != "material")
        yield from material
    for each in (*inputs.pictures, *inputs.regions):
        yield from vars(each).values()


def save_checkpoint(folder: Path, checkpoint: Checkpoint, mark: str) -> None:
    """Write atomically. Raises OSError if the disk is full or the folder cannot be written; the old file then stays."""
    path, part = folder / FILE_NAME, folder / (FILE_NAME + ".part")
    # Through memory: on a full disk, torch's own writer raises something else over the OSError.
    content = io.BytesIO()
    torch.save({"format": FORMAT, "fingerprint": mark, **vars(checkpoint), "aim": vars(checkpoint.aim)}, content)
    try:
        with open(part, "wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def load_checkpoint(folder: Path, mark: str) -> Checkpoint | None:
    """The checkpoint in `folder`, or None. Raises InputError if it is damaged or belongs to another job."""
    path = folder / FILE_NAME
    if not path.exists():
        return None
    try:
        state = torch.load(path, weights_only=True)
        if state.pop("format") != FORMAT:
            raise KeyError("format")
        found = state.pop("fingerprint")
        checkpoint = Checkpoint(**state | {"aim": Aim(**state["aim"])})
    except Exception as error:  # torch.load raises whatever the damaged bytes lead it to
        raise InputError(
            f"The checkpoint {path} cannot be read ({type(error).__name__}); remove it to start the job anew."
        ) from error
    if found != mark:
        raise InputError(
            f"The checkpoint {path} belongs to a job with other settings, another start mesh or another prior. "
            "Use the settings it was made with, or remove it to start anew."
        )
    return checkpoint
