"""The networks whose features losses compare: found in a folder or on the model hub, and loaded once a job."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from backend.errors import InputError
from backend.losses.clip import Clip
from backend.losses.perceptual import Lpips, read_lpips
from backend.priors.hub import HUB_ID, cached_folder, download
from protocol.settings import JobSettings, largest

PERCEPTUAL = ("reference_perceptual",)
CLIP = ("reference_clip", "clip_text", "clip_direction")
"""The losses that need each of the two networks."""

CLIP_WEIGHTS = "model.safetensors"
CLIP_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")


@dataclass(frozen=True, eq=False)
class FeatureNetworks:
    """Those that a job's losses need; None are those that it does not."""

    perceptual: Lpips | None = None
    clip: Clip | None = None


def load_feature_networks(
    settings: JobSettings, device: torch.device, report: Callable[[str], None] = lambda message: None
) -> FeatureNetworks:
    """The networks that losses of the job's stages need, in float32; `report` is told what is downloaded before that starts.

    Raises:
        InputError: one is needed and none is named, or what is named cannot be found or used.
    """
    features = settings.features
    lpips = clip = None
    if loss := _first_weighing(settings, PERCEPTUAL):
        lpips = load_perceptual(_named(features.perceptual, loss, "perceptual", "VGG16 with LPIPS's layers"), report).to(device)
    if loss := _first_weighing(settings, CLIP):
        clip = load_clip(_named(features.clip, loss, "clip", "a CLIP model"), device, report)
    return FeatureNetworks(lpips, clip)


def load_perceptual(source: str, report: Callable[[str], None] = lambda message: None) -> Lpips:
    """LPIPS on VGG16 from `source`, a folder or a hub id.

    Raises:
        InputError: there is no such folder or model, or it cannot be used.
    """
    return read_lpips(_folder(source, _choose_perceptual, report))


def load_clip(source: str, device: torch.device, report: Callable[[str], None] = lambda message: None) -> Clip:
    """A CLIP model in transformers' layout from `source`, a folder or a hub id.

    Raises:
        InputError: there is no such folder or model, or it is not complete, damaged or of another kind.
    """
    from transformers import CLIPModel, CLIPTokenizer  # seconds that jobs without it do not pay

    from backend.priors.pretrained_files import PretrainedFiles
    from backend.priors.pretrained_models import load_component, load_tokenizer

    folder = _folder(source, _choose_clip, report)
    files = PretrainedFiles(source, folder, {"model": (folder / CLIP_WEIGHTS,)})
    kind = files.component_config("model").get("model_type")
    if kind != "clip":
        raise InputError(f"The model in {folder} is a {kind!r} according to its config.json; expected a 'clip' model.")
    return Clip(source, load_component(CLIPModel, files, "model", torch.float32).to(device), load_tokenizer(CLIPTokenizer, files, "."))


def _first_weighing(settings: JobSettings, losses: tuple[str, ...]) -> str | None:
    """The first of `losses` that weighs anything at any time in this job."""
    for loss in losses:
        is_used = settings.references or not loss.startswith("reference_")
        if is_used and any(largest(getattr(stage.losses, loss)) > 0 for stage in settings.stages):
            return loss
    return None


def _named(source: str, loss: str, option: str, what: str) -> str:
    if not source.strip():
        raise InputError(
            f"losses.{loss} compares features of a network, and none is named. Name the folder or hub id of {what} "
            f"(--{option}, features.{option}), or set the weight to 0."
        )
    return source.strip()


def _folder(source: str, choose: Callable[[Collection[str]], list[str]], report: Callable[[str], None]) -> Path:
    """The folder that holds what `choose` picks; it raises InputError, as the end of a sentence, where something is missing."""
    path = Path(source).expanduser()
    if path.is_dir():
        try:
            choose([file.name for file in path.iterdir() if file.is_file()])
        except InputError as error:
            raise InputError(f"The folder {path} is {error}") from error
        return path
    if path.exists() or not HUB_ID.fullmatch(source):
        raise InputError(
            f"There is no folder {source!r}, and it is not an id of the model hub, which looks like owner/name. Give the path of "
            "the folder in which the weights lie, or such an id."
        )
    earlier = cached_folder(source)
    if earlier is not None:
        try:
            choose([file.name for file in earlier.iterdir() if file.is_file()])
            return earlier
        except InputError:
            pass  # the hub has more of it than was asked for until now
    return download(source, choose, report)


def _choose_perceptual(offered: Collection[str]) -> list[str]:
    for ending in (".safetensors", ".pth"):
        chosen = sorted(name for name in offered if name.endswith(ending) and "/" not in name)
        if chosen:
            return chosen
    raise InputError("no model for perceptual losses: it has neither .safetensors nor .pth files.")


def _choose_clip(offered: Collection[str]) -> list[str]:
    missing = [name for name in ("config.json", CLIP_WEIGHTS) if name not in offered]
    if not ("tokenizer.json" in offered or {"vocab.json", "merges.txt"} <= set(offered)):
        missing.append("tokenizer.json")
    if missing:
        raise InputError(f"not a complete CLIP model in transformers' layout. Missing: {', '.join(missing)}.")
    return ["config.json", CLIP_WEIGHTS, *(name for name in CLIP_TOKENIZER if name in offered)]
