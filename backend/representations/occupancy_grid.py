"""Which cells of the cube [-1, 1]^3 hold any density: a ray's samples in the others are not asked for.

After Mueller et al. 2022, appendix C: a moving maximum of the densities met in each cell and a bit where it passes a
threshold. The points that are looked at walk through each cell on a low-discrepancy sequence (Roberts 2018, "The
unreasonable effectiveness of quasirandom sequences": the R3 sequence), so no random number is drawn and the same field
gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor

from backend.rendering.chords import Chords
from backend.rendering.volume import occupied_samples

STEPS_OF_SEQUENCE = (0.8191725134, 0.6710436067, 0.5497004779)
"""Powers of the inverse of 1.2207440846, the root of x^4 = x + 1."""


class OccupancyGrid:
    """Densities [R, R, R] (indexed [z, y, x]) seen lately, and the bits made of them.

    Until the first `update` every cell counts as occupied.
    """

    def __init__(
        self, resolution: int, threshold: float, decay: float = 0.7, device: torch.device | str = "cpu"
    ) -> None:
        """Cells whose density lately was below `threshold` (per unit length) are empty; what was seen fades by `decay`."""
        self.resolution = resolution
        self.threshold = threshold
        self.decay = decay
        self.updates = 0
        self.density = torch.zeros(resolution, resolution, resolution, device=device)
        self.bits = pack_bits(torch.ones_like(self.density, dtype=torch.bool))
        axis = torch.arange(resolution, device=device)
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        self._cells = torch.stack([x, y, z], dim=-1).view(-1, 3)

    @torch.no_grad()
    def update(self, density_at: Callable[[Float[Tensor, "P 3"]], Float[Tensor, "P"]]) -> None:
        """Look at one point of each cell, another one each time."""
        place = self._cells + _place_in_cell(self.updates).to(self._cells.device)
        seen = density_at(place * (2.0 / self.resolution) - 1.0)
        self.density = torch.maximum(self.decay * self.density, seen.view_as(self.density))
        self.updates += 1
        self.bits = pack_bits(self.occupied())

    def occupied(self) -> Bool[Tensor, "R R R"]:
        """The cells above the threshold, and those beside them: a surface passes through cells between two looks."""
        above = (self.density >= self.threshold).float()[None, None]
        return torch.nn.functional.max_pool3d(above, 3, stride=1, padding=1)[0, 0] > 0.0

    def samples(self, chords: Chords) -> Bool[Tensor, "P S"]:
        """The samples that lie in occupied cells."""
        return occupied_samples(chords, self.bits, self.resolution)

    def state_dict(self) -> dict[str, Tensor]:
        return {"density": self.density.clone(), "updates": torch.tensor(self.updates)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.density.copy_(state["density"])
        self.updates = int(state["updates"])
        self.bits = pack_bits(self.occupied() if self.updates else torch.ones_like(self.density, dtype=torch.bool))


def pack_bits(occupied: Bool[Tensor, "R R R"]) -> Int32[Tensor, "B"]:
    """One bit a cell, the first cell's the lowest of the first number."""
    flat = torch.nn.functional.pad(occupied.flatten(), (0, -occupied.numel() % 32)).view(-1, 32)
    return (flat.long() << torch.arange(32, device=flat.device)).sum(dim=1).to(torch.int32)


def _place_in_cell(index: int) -> Float[Tensor, "3"]:
    """In (0, 1)^3; the first one is the middle."""
    return torch.tensor([(0.5 + index * step) % 1.0 for step in STEPS_OF_SEQUENCE])
