"""LPIPS (Zhang et al. 2018), version 0.1 on VGG16: how different two pictures look.

The network has the names under which its weights are published: `features.N` of torchvision's VGG16, and `lin0.model.1` to
`lin4.model.1`, the weights of the channels. The number of channels of each convolution is read from the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from backend.errors import InputError

BLOCKS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""Places of the convolutions in torchvision's `features`; a ReLU follows each, and a pooling lies between two blocks."""

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""What LPIPS subtracts from, and divides, pictures in [-1, 1] by."""

SMALLEST_SIDE = 16
LARGEST_FILE = 2**30
"""VGG16 with its classifier has 528 MB."""

WHAT_TO_DO = (
    "Put torchvision's vgg16 weights and lpips's vgg.pth (v0.1) into one folder, as .safetensors or .pth, and name that folder."
)


class Lpips(nn.Module):
    """The distance of pictures; frozen. `widths` are the channels of the thirteen convolutions (VGG16: 64, 64, 128 ...)."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, outs = 3, iter(widths)
        for number, block in enumerate(BLOCKS):
            layers += [nn.MaxPool2d(2)] if number else []
            for _ in block:
                out = next(outs)
                layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU()]
                channels = out
            weighing = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 1, 1, bias=False))
            self.add_module(f"lin{number}", nn.ModuleDict({"model": weighing}))
        self.features = nn.Sequential(*layers)
        self.register_buffer("shift", torch.tensor(SHIFT).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).reshape(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def directions(self, pictures: Tensor) -> list[Tensor]:
        """What is compared of `pictures` [N, 3, H, W] in [0, 1]: after each block its features as unit vectors over the channels,
        [N, C, h, w].

        Raises:
            InputError: the pictures are too small for the network.
        """
        if min(pictures.shape[-2:]) < SMALLEST_SIDE:
            raise InputError(
                f"Perceptual losses were asked about pictures of {pictures.shape[-1]} x {pictures.shape[-2]} pixels; VGG16 needs at "
                f"least {SMALLEST_SIDE} x {SMALLEST_SIDE}. Render larger (render_size), or set their weight to 0."
            )
        x = ((2 * pictures - 1) - self.shift) / self.scale
        found, begin = [], 0
        for block in BLOCKS:
            end = block[-1] + 2
            x = self.features[begin:end](x)
            # Not x / (norm + 1e-10), which it equals but where all features are nearly zero: its gradient is finite there.
            found.append(x * (x.square().sum(dim=1, keepdim=True) + 1e-20).rsqrt())
            begin = end
        return found

    def between(self, directions: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
        """Distances [N] from `directions` of two batches of pictures; one batch may hold a single picture for all."""
        distance = 0.0
        for number, (one, other) in enumerate(zip(directions, others, strict=True)):
            weighing = self.get_submodule(f"lin{number}.model")
            distance = distance + weighing((one - other).square()).mean(dim=(1, 2, 3))
        return distance

    def forward(self, pictures: Tensor, others: Tensor) -> Tensor:
        """Distances [N] of pictures [N, 3, H, W], in [0, 1]; 0 where they are equal."""
        return self.between(self.directions(pictures), self.directions(others))


def read_lpips(folder: Path) -> Lpips:
    """The network from the weight files that lie in `folder`.

    Raises:
        InputError: a file cannot be read, or weights are missing or do not fit together; says which.
    """
    return lpips_from(_read_tensors(folder), folder)


def lpips_from(tensors: Mapping[str, Tensor], source: object) -> Lpips:
    """The network with these weights; those that it does not have (VGG16's classifier) are left out. `source` is for messages.

    Raises:
        InputError: weights are missing or do not fit together.
    """
    convolutions = [f"features.{index}" for block in BLOCKS for index in block]
    needed = [f"{name}.{part}" for name in convolutions for part in ("weight", "bias")]
    needed += [f"lin{number}.model.1.weight" for number in range(len(BLOCKS))]
    missing = [name for name in needed if name not in tensors]
    if missing:
        found = ", ".join(sorted(tensors)[:3]) or "no weights at all"
        raise InputError(
            f"{source} does not hold LPIPS on VGG16: {len(missing)} of {len(needed)} weights are missing, the first is {missing[0]}; "
            f"it begins with {found}. {WHAT_TO_DO}"
        )
    network = Lpips([tensors[f"{name}.weight"].shape[0] if tensors[f"{name}.weight"].dim() else 0 for name in convolutions])
    for name, expected in network.state_dict().items():
        if tensors[name].shape != expected.shape:
            raise InputError(
                f"{source} does not hold LPIPS on VGG16: {name} has the shape {list(tensors[name].shape)} where the weights around it "
                f"ask for {list(expected.shape)}. {WHAT_TO_DO}"
            )
    network.load_state_dict({name: tensors[name].float() for name in needed})
    return network


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of the weight files in `folder`; a name that occurs twice is taken from the first, safetensors first."""
    files = [*sorted(folder.glob("*.safetensors")), *sorted(folder.glob("*.pth"))]
    if not files:
        raise InputError(f"There are no weights in {folder}: expected .safetensors or .pth files. {WHAT_TO_DO}")
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors = _read_file(file) | tensors
    return tensors


def _read_file(file: Path) -> dict[str, Tensor]:
    if file.stat().st_size > LARGEST_FILE:
        raise InputError(
            f"{file} has {file.stat().st_size / 2**20:.0f} MB, more than VGG16 can have ({LARGEST_FILE // 2**20} MB). {WHAT_TO_DO}"
        )
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise InputError(f"{file} cannot be read ({error}). Fetch it again.") from error
    except Exception as error:  # torch.load raises whatever the damaged bytes lead it to
        raise InputError(
            f"{file} cannot be read as plain weights ({type(error).__name__}): it is damaged, or holds Python objects, which are "
            "not opened because they could run code. Fetch it again."
        ) from error
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{file} holds something else than a table of weights. {WHAT_TO_DO}")
    return dict(content)
