"""From what the user names to a prior: "toybox", a folder, or an id of the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from backend.priors.prior import Prior
from backend.priors.stable_diffusion import load_stable_diffusion
from backend.priors.toybox import TOYBOX_FOLDER, ToyboxPrior


def load_prior(source: str, device: torch.device | str, report: Callable[[str], None] = lambda message: None) -> Prior:
    """The prior of `source` on `device`; `report` is told what is about to be downloaded or loaded, and how large it is.

    A folder says itself what it holds (`_class_name` in its model_index.json). Raises InputError for what is not there,
    not complete or not a model that Galatea can use.
    """
    if source == "toybox":
        return ToyboxPrior.load(TOYBOX_FOLDER, device)
    if _class_name(Path(source)) == "ToyboxModel":
        return ToyboxPrior.load(Path(source), device)
    return load_stable_diffusion(source, torch.device(device), report)


def _class_name(folder: Path) -> str | None:
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return index.get("_class_name") if isinstance(index, dict) else None
