"""Trains the judge once: ``python -m backend.evaluation.train_judge``.

The shipped judge is frozen: it is not to be trained again, since every figure that it gave would lose its meaning.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from backend.evaluation.judge import JudgeNet, angle_between, azimuth_targets, likely_azimuth, read
from backend.evaluation.judge_data import JudgeData, make_judge_data, on_backgrounds
from backend.toybox.objects import KINDS

TRAIN_SEED, TEST_SEED = 1, 2
HAS_FRONT = torch.tensor([kind.has_front for kind in KINDS])


def loss_of(net: JudgeNet, images: Tensor, labels: Tensor, azimuth: Tensor) -> Tensor:
    """Cross-entropies of kind, both colors and, for kinds that have a front, the azimuth."""
    kind, main, second, turn = net(images)
    has_front = HAS_FRONT[labels[:, 0]].float()
    turned = cross_entropy(turn, azimuth_targets(azimuth), reduction="none")
    colors = cross_entropy(main, labels[:, 1]) + cross_entropy(second, labels[:, 2])
    return cross_entropy(kind, labels[:, 0]) + colors + (turned * has_front).mean()


def train(data: JudgeData, seconds: float, seed: int = 0, batch: int = 128, rate: float = 2e-3) -> tuple[JudgeNet, int]:
    """Trains for `seconds` with a one-cycle learning rate over that time; gives the net and the images seen."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = JudgeNet().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.02)
    begun, seen, order = time.monotonic(), 0, torch.empty(0, dtype=torch.int64)
    while (progress := (time.monotonic() - begun) / seconds) < 1.0:
        if len(order) < batch:
            order = torch.randperm(len(data.images), generator=generator)
        chosen, order = order[:batch], order[batch:]
        optimizer.param_groups[0]["lr"] = rate * min(1.0, 20 * progress + 0.02) * (1.0 - progress)
        images = on_backgrounds(data.images[chosen], generator).contiguous(memory_format=torch.channels_last)
        loss = loss_of(net, images, data.labels[chosen], data.azimuth[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen += batch
        if seen % (batch * 100) == 0:
            print(f"{progress:6.1%}  {seen} images  loss {loss.item():.3f}", flush=True)
    return net.eval(), seen


def accuracy(net: JudgeNet, data: JudgeData) -> dict[str, float]:
    """Shares of single views read right; azimuth over kinds that have a front only."""
    images = on_backgrounds(data.images, torch.Generator().manual_seed(5))
    readings = [read(net, part) for part in images.split(256)]
    names = ("kind", "main", "second", "azimuth")
    kind, main, second, turn = (torch.cat([getattr(reading, name) for reading in readings]) for name in names)
    front = HAS_FRONT[data.labels[:, 0]]
    error = angle_between(likely_azimuth(turn), data.azimuth)[front]
    right = [(head.argmax(1) == data.labels[:, k]).float() for k, head in enumerate((kind, main, second))]
    of_kind = torch.stack([right[0][data.labels[:, 0] == k].mean() for k in range(len(KINDS))])
    return {
        "kind": right[0].mean().item(),
        "worst kind": of_kind.min().item(),
        "main color": right[1].mean().item(),
        "second color": right[2].mean().item(),
        "second color, probability": second.gather(1, data.labels[:, 2:]).mean().item(),
        "azimuth within 45 degrees": (error < 45.0).float().mean().item(),
        "azimuth, median error": error.median().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="where the weights go (safetensors, fp16)")
    parser.add_argument("--objects", type=int, default=5000)
    parser.add_argument("--minutes", type=float, default=20.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = make_judge_data(TRAIN_SEED, options.objects, views=8, degraded_share=0.5)
    print(f"{len(data.images)} images", flush=True)
    net, seen = train(data, 60.0 * options.minutes)
    save_file({name: value.half().contiguous() for name, value in net.state_dict().items()}, options.output)
    net.load_state_dict({name: value.half().float() for name, value in net.state_dict().items()})
    print(f"{seen} images seen")
    for title, share in (("true renders", 0.0), ("degraded", 1.0)):
        print(title, accuracy(net, make_judge_data(TEST_SEED, 600, views=4, degraded_share=share)))


if __name__ == "__main__":
    main()
