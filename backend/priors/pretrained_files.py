"""Finding the files of a pretrained model in diffusers layout: a folder on disk, or a model of the Hugging Face hub.

Only safetensors weights are read: `.bin` and `.ckpt` files are pickles, which can run code. Whatever is missing is named
before anything large is loaded, and nothing is downloaded whose size has not been said first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HTTPError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from backend.errors import InputError
from backend.priors.memory import gigabytes

WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model",
    "vae": "vae/diffusion_pytorch_model",
    "text_encoder": "text_encoder/model",
}
"""Weight files of each component, without their ending."""

CONFIGS = (
    "model_index.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
)

TOKENIZERS = (("tokenizer/tokenizer.json",), ("tokenizer/vocab.json", "tokenizer/merges.txt"))
"""Either of these makes a tokenizer; older models publish the second."""

EXTRAS = ("tokenizer/tokenizer_config.json", "tokenizer/special_tokens_map.json")

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class PretrainedFiles:
    """A complete Stable Diffusion model on disk. `weights` has a path for each component of `WEIGHTS`."""

    name: str
    folder: Path
    weights: dict[str, Path]

    def variant(self, component: str) -> str | None:
        """"fp16" if the component's weights are stored as such, which diffusers wants to be told."""
        return "fp16" if self.weights[component].name.endswith(".fp16.safetensors") else None

    def config(self, relative: str) -> dict[str, object]:
        """A JSON file of the folder.

        Raises:
            InputError: it does not hold a JSON object.
        """
        path = self.folder / relative
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is not valid JSON ({error}). Fetch the model again.") from error
        if not isinstance(content, dict):
            raise InputError(f"{path} holds no JSON object. Fetch the model again.")
        return content


def find_files(source: str, half: bool, report: Callable[[str], None]) -> PretrainedFiles:
    """The files of the model `source`, a folder or a hub id like `owner/name`; downloaded if they are not here yet.

    With `half`, fp16 weights are preferred where both are offered. `report` is told what is downloaded and how large it
    is before that starts.

    Raises:
        InputError: there is no such folder or model, a file is missing, or the hub cannot be reached.
    """
    path = Path(source).expanduser()
    if path.is_file():
        raise InputError(
            f"{source} is a single file. Expected a folder in diffusers layout, with model_index.json and the folders "
            "unet, vae, text_encoder, tokenizer and scheduler in it; diffusers converts single checkpoints to that."
        )
    if path.is_dir():
        return _complete(path.resolve().name, path, half)
    if not HUB_ID.fullmatch(source):
        raise InputError(
            f"There is no folder {source!r}, and it is not an id of the model hub, which looks like owner/name. "
            "Give the path of a folder in diffusers layout or such an id."
        )
    return _complete(source, _from_hub(source, half, report), half)


def choose_files(offered: Collection[str], half: bool) -> list[str]:
    """Those of the relative paths `offered` that are needed, one file of weights for each component.

    Raises:
        InputError: something needed is not among them; the message names all that is missing.
    """
    missing = [name for name in CONFIGS if name not in offered]
    chosen = [name for name in (*CONFIGS, *EXTRAS) if name in offered]
    for stem in WEIGHTS.values():
        candidates = [f"{stem}.safetensors", f"{stem}.fp16.safetensors"]
        found = [name for name in (reversed(candidates) if half else candidates) if name in offered]
        if found:
            chosen.append(found[0])
        elif any(name.startswith(stem) and name.endswith(".bin") for name in offered):
            missing.append(f"{candidates[0]} (there is only a .bin file, which is a pickle and not safe to open)")
        else:
            missing.append(candidates[0])
    tokenizer = [names for names in TOKENIZERS if all(name in offered for name in names)]
    if tokenizer:
        chosen.extend(tokenizer[0])
    else:
        missing.append("tokenizer/tokenizer.json")
    if missing:
        raise InputError(
            f"not a complete Stable Diffusion model in diffusers layout. Missing: {', '.join(missing)}."
        )
    return chosen


def _complete(name: str, folder: Path, half: bool) -> PretrainedFiles:
    offered = {path.relative_to(folder).as_posix() for path in folder.glob("*") if path.is_file()}
    offered |= {path.relative_to(folder).as_posix() for path in folder.glob("*/*") if path.is_file()}
    try:
        chosen = choose_files(offered, half)
    except InputError as error:
        raise InputError(f"The folder {folder} is {error}") from error
    weights = {
        component: folder / next(path for path in chosen if path.startswith(stem))
        for component, stem in WEIGHTS.items()
    }
    return PretrainedFiles(name, folder, weights)


def _from_hub(model: str, half: bool, report: Callable[[str], None]) -> Path:
    cached = _cached(model, half)
    if cached is not None:
        return cached
    try:
        files = huggingface_hub.HfApi().model_info(model, files_metadata=True).siblings or []
        sizes = {file.rfilename: file.size or 0 for file in files}
        try:
            chosen = choose_files(sizes, half)
        except InputError as error:
            raise InputError(f"The model {model!r} of the hub is {error}") from error
        size = gigabytes(sum(sizes[name] for name in chosen))
        report(f"downloading {model}: {len(chosen)} files, {size}, into the hub's cache folder")
        return Path(huggingface_hub.snapshot_download(model, allow_patterns=chosen))
    except GatedRepoError as error:
        raise InputError(
            f"The model {model!r} asks its users to accept conditions first: do so on its page on the hub and log in "
            "with `hf auth login`, or give a local folder."
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"There is no folder {model!r} and no public model of that name on the hub (models are sometimes taken "
            "down). Check the spelling, or give a local folder in diffusers layout."
        ) from error
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, HTTPError, ConnectionError, TimeoutError) as error:
        raise InputError(
            f"There is no folder {model!r}, and the model hub cannot be reached to look for a model of that name. "
            "Go online, or give a local folder in diffusers layout."
        ) from error
    except OSError as error:
        raise InputError(
            f"{model} could not be saved in the hub's cache folder ({error}). Free some space there, or set HF_HOME to "
            "a folder on another disk."
        ) from error


def _cached(model: str, half: bool) -> Path | None:
    """The folder of an earlier download, if all that is needed is in it; asks nobody."""
    try:
        folder = Path(huggingface_hub.snapshot_download(model, local_files_only=True))
    except IncompleteSnapshotError as error:  # the hub has more files than were ever asked for
        folder = Path(error.snapshot_path)
    except LocalEntryNotFoundError:
        return None
    try:
        _complete(model, folder, half)
    except InputError:
        return None
    return folder
