"""Pictures as CLIP (Radford et al. 2021) wants to see them: for priors that are shown one, and for losses."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def clip_input(pictures: Tensor, size: int, corners: bool = False) -> Tensor:
    """[N, 3, S, S] in [0, 1] -> [N, 3, size, size], normalized as CLIP was trained; differentiable.

    Bicubic: antialiased, as CLIP's own preprocessing does it, or with `corners` on corners and without antialiasing, as in
    the code of Zero123.
    """
    if corners:
        scaled = F.interpolate(pictures, (size, size), mode="bicubic", align_corners=True)
    else:
        scaled = F.interpolate(pictures, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
    mean, deviation = (pictures.new_tensor(values).reshape(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_DEVIATION))
    return (scaled - mean) / deviation
