"""Loading the parts of a pretrained model with every weight accounted for, and nothing said by the libraries meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import diffusers
import torch
import transformers
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase, T5TokenizerFast

from backend.errors import InputError
from backend.priors.pretrained_files import PretrainedFiles
from backend.priors.sentence_pieces import read_sentence_pieces
from protocol.settings import LoadingSettings

T5_PLACEHOLDERS = 100

Model = TypeVar("Model", bound=torch.nn.Module)
Tokenizer = TypeVar("Tokenizer", bound=PreTrainedTokenizerBase)


def dtype_of(loading: LoadingSettings, device: torch.device) -> torch.dtype:
    """The number format of the weights: "auto" is float16 on CUDA and float32 elsewhere."""
    if loading.dtype == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return getattr(torch, loading.dtype)


def load_component(kind: type[Model], files: PretrainedFiles, component: str, dtype: torch.dtype) -> Model:
    """One component, frozen, in main memory, in `dtype`; `kind` is its class in diffusers or transformers, or one like them.

    Every weight is accounted for: a missing one would be random, and nothing would say so.

    Raises:
        InputError: the file is damaged or does not fit the config.json beside it.
    """
    try:
        with quiet():
            model, info = kind.from_pretrained(
                files.component_folder(component),
                variant=files.variant(component),
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                torch_dtype=dtype,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{files.weights[component][0]} cannot be loaded: {error}") from error
    absent = sorted(info["missing_keys"]) + sorted(map(str, info["mismatched_keys"]))
    if absent:
        raise InputError(
            f"{files.weights[component][0]} does not fit its config.json: {len(absent)} weights are missing or of another "
            f"shape, the first is {absent[0]}. Fetch the model again."
        )
    return model.requires_grad_(False).eval()


def load_tokenizer(kind: type[Tokenizer], files: PretrainedFiles, folder: str = "tokenizer") -> Tokenizer:
    """A tokenizer from the model's `folder` of that name; `kind` is CLIPTokenizer or T5TokenizerFast.

    Raises:
        InputError: its files are damaged.
    """
    path = files.folder / folder
    try:
        with quiet():
            if issubclass(kind, T5TokenizerFast) and not (path / "tokenizer.json").exists():
                return _from_sentence_pieces(kind, path)
            return kind.from_pretrained(path, local_files_only=True)
    except Exception as error:  # the tokenizers library raises nothing more specific for a damaged file
        raise InputError(f"{path} cannot be loaded: {error}. Fetch the model again.") from error


def _from_sentence_pieces(kind: type[T5TokenizerFast], folder: Path) -> T5TokenizerFast:
    """T5's vocabulary is that of spiece.model and some placeholders ("<extra_id_99>" first) after it, which prompts never have."""
    read = read_sentence_pieces(folder / "spiece.model")
    placeholders = [(f"<extra_id_{index}>", 0.0) for index in range(T5_PLACEHOLDERS - 1, -1, -1)]
    return kind(vocab=read.pieces + placeholders, _spm_precompiled_charsmap=read.replacements or None, extra_ids=T5_PLACEHOLDERS)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' own progress bars and load reports: what matters in them is raised as an error here."""
    bars = [library for library in (transformers, diffusers) if library.utils.logging.is_progress_bar_enabled()]
    levels = [(library, library.utils.logging.get_verbosity()) for library in (transformers, diffusers)]
    for library, _ in levels:
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        for library, level in levels:
            library.utils.logging.set_verbosity(level)
        for library in bars:
            library.utils.logging.enable_progress_bar()
