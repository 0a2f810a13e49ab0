"""Feature networks of a few thousand random weights, on disk exactly as the real ones are published."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from backend.priors.pretrained_models import quiet

CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Of torchvision's vgg16().features."""

WIDTHS = (4, 5, 6, 6, 7, 8, 8, 8, 9, 9, 9, 10, 10)


def vgg_weights(widths: Sequence[int] = WIDTHS, seed: int = 0) -> dict[str, Tensor]:
    """A state dict as of torchvision's vgg16, but narrower; with something of its classifier, which is not used."""
    draw = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {"classifier.0.weight": torch.zeros(4, 4), "classifier.0.bias": torch.zeros(4)}
    channels = 3
    for index, width in zip(CONVOLUTIONS, widths, strict=True):
        weights[f"features.{index}.weight"] = torch.randn(width, channels, 3, 3, generator=draw) * (2 / (9 * channels)) ** 0.5
        weights[f"features.{index}.bias"] = torch.randn(width, generator=draw) / 10
        channels = width
    return weights


def lpips_weights(widths: Sequence[int] = WIDTHS, seed: int = 1) -> dict[str, Tensor]:
    """A state dict as of lpips's weights/v0.1/vgg.pth, but narrower."""
    draw = torch.Generator().manual_seed(seed)
    lasts = [widths[place] for place in (1, 3, 6, 9, 12)]
    return {f"lin{k}.model.1.weight": torch.rand(1, width, 1, 1, generator=draw) for k, width in enumerate(lasts)}


def write_perceptual(folder: Path) -> Path:
    """vgg16's and LPIPS's weights as two .pth files."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(vgg_weights(), folder / "vgg16-397923af.pth")
    torch.save(lpips_weights(), folder / "vgg.pth")
    return folder


def write_clip(folder: Path) -> Path:
    """config.json, model.safetensors and a tokenizer that knows the letters, as transformers' CLIP models have them."""
    torch.manual_seed(3)
    characters = [chr(code) for code in range(33, 127)]
    words = characters + [f"{character}</w>" for character in characters]
    vocabulary = {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    tokenizer |= {"unk_token": "<|endoftext|>", "model_max_length": 24, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = shape | {"vocab_size": len(vocabulary), "max_position_embeddings": 24}
    text |= {"bos_token_id": len(words), "eos_token_id": len(words) + 1, "pad_token_id": len(words) + 1}
    vision = shape | {"image_size": 16, "patch_size": 4}
    with quiet():
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12, initializer_factor=5.0))
        model.save_pretrained(folder)
    return folder


def write_both_in_one(folder: Path) -> Path:
    """The weights of `write_perceptual` as one safetensors file."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(vgg_weights() | lpips_weights(), folder / "model.safetensors")
    return folder
