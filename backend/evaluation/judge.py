"""The judge: a small classifier that reads kind, part colors and azimuth from pictures of an object.

It was trained on objects, lights and cameras of its own (`train_judge.py`), then frozen; see `weights/README.md`. It
takes no part in optimization and never chooses a checkpoint or a result: it only says what an outsider sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from backend.toybox.objects import KINDS
from backend.toybox.palette import COLORS

WEIGHTS = Path(__file__).parent / "weights" / "judge.safetensors"
AZIMUTH_BINS = 24
BIN_DEGREES = 360.0 / AZIMUTH_BINS
HEADS = (len(KINDS), len(COLORS), len(COLORS), AZIMUTH_BINS)


class JudgeNet(nn.Module):
    """64 x 64 RGB in [0, 1] -> logits of kind, main color, second color and azimuth bin; 0.86 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        widths = ((3, 32, 5, 2), (32, 64, 3, 2), (64, 96, 3, 1), (96, 128, 3, 2), (128, 128, 3, 1), (128, 160, 3, 2))
        layers: list[nn.Module] = []
        for before, after, kernel, stride in widths:
            convolution = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2), nn.Linear(160 * 4 * 4, 128), nn.ReLU())
        self.heads = nn.Linear(128, sum(HEADS))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """`images` [N, 3, 64, 64] -> four logit tensors [N, heads]."""
        return self.heads(self.trunk((images - 0.5) * 4.0)).split(HEADS, dim=1)


@dataclass(frozen=True)
class Reading:
    """Probabilities for each view: kind [N, 28], main and second [N, 12], azimuth [N, 24] (bin k at 15 k degrees)."""

    kind: Tensor
    main: Tensor
    second: Tensor
    azimuth: Tensor


@torch.no_grad()
def read(net: JudgeNet, images: Tensor) -> Reading:
    """What the judge sees in `images` [N, 3, 64, 64], colors in [0, 1] on any background."""
    return Reading(*(logits.softmax(1) for logits in net(images)))


@cache
def shipped_judge() -> JudgeNet:
    """The frozen judge."""
    net = JudgeNet()
    net.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()})
    return net.eval()


def azimuth_targets(azimuth: Tensor, spread: float = 10.0) -> Tensor:
    """Soft bin targets [N, 24] for azimuths [N] in degrees: a wrapped normal bump of `spread` degrees."""
    centers = torch.arange(AZIMUTH_BINS) * BIN_DEGREES
    away = (azimuth[:, None] - centers + 180.0) % 360.0 - 180.0
    weight = torch.exp(-0.5 * (away / spread) ** 2)
    return weight / weight.sum(1, keepdim=True)


def likely_azimuth(probabilities: Tensor) -> Tensor:
    """The middle of the most likely 45 degrees (three neighboring bins), [N] degrees."""
    three = probabilities + probabilities.roll(1, 1) + probabilities.roll(-1, 1)
    best = three.argmax(1)
    rows = torch.arange(len(best))
    left, right = probabilities[rows, (best - 1) % AZIMUTH_BINS], probabilities[rows, (best + 1) % AZIMUTH_BINS]
    return (best + (right - left) / three[rows, best].clamp_min(1e-6)) * BIN_DEGREES % 360.0


def angle_between(a: Tensor, b: Tensor) -> Tensor:
    """Absolute difference of two angles in degrees, in [0, 180]."""
    return ((a - b + 180.0) % 360.0 - 180.0).abs()
