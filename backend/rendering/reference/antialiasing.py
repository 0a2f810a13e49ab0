"""Edge-driven analytic antialiasing, in plain torch; see `backend.rendering.kernels.antialiasing` for what it does."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from backend.rendering.constants import FURTHEST_REACH, SMALLEST_W, W_SLACK
from backend.rendering.reference.visibility import pixel_coordinates

SMALLEST_SINE = 1.0e-3


def antialias(image: Tensor, clip: Tensor, face_ids: Tensor, w: Tensor, edges: Tensor, opposite: Tensor) -> Tensor:
    """`image` with its silhouettes blended, `[N, H, W, C]`; see `backend.rendering.antialias`."""
    views = [_antialias_view(*view, edges.long(), opposite.long()) for view in zip(image, clip, face_ids, w)]
    return torch.stack(views) if views else image.clone()


@dataclass(frozen=True)
class _Crossings:
    """Where silhouette edges cross lines of pixel centers, one row each; `[K]` tensors.

    `first` and `second` are the pixels of the pair, `step` what lies between their indices, `room` how many pixels the
    line has on the far side of each; `place` is differentiable, in pixels from the first one's center.
    """

    edge: Tensor
    vertical: Tensor
    acts: Tensor
    toward: Tensor
    first: Tensor
    step: Tensor
    index: Tensor
    length: Tensor
    place: Tensor
    inverse_w: Tensor

    @property
    def second(self) -> Tensor:
        return self.first + self.step

    @property
    def slot(self) -> Tensor:
        return 2 * self.first + self.vertical.long()

    @property
    def distance(self) -> Tensor:
        """From the far pixel's center."""
        return torch.where(self.toward > 0, self.place, 1 - self.place).detach()

    def __getitem__(self, rows: Tensor) -> _Crossings:
        return _Crossings(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def _antialias_view(
    image: Tensor, clip: Tensor, face_ids: Tensor, w: Tensor, edges: Tensor, opposite: Tensor
) -> Tensor:
    height, width, channels = image.shape
    ids, depth, colors = face_ids.reshape(-1), w.reshape(-1), image.reshape(-1, channels)
    with torch.no_grad():
        edge, side = _silhouettes(clip, edges, opposite)
    crossings = _crossings(clip, edges, edge, side, height, width)
    near = torch.where(crossings.toward > 0, crossings.second, crossings.first)
    far = crossings.first + crossings.second - near
    shown = (ids[near] >= 0) & (ids[near] != ids[far]) & (depth[far] * crossings.inverse_w > 1 - W_SLACK)
    crossings, near, far = crossings[shown], near[shown], far[shown]
    won = _first_per_slot(crossings.slot, crossings.distance, crossings.edge, 2 * height * width, len(edges))
    claimed = torch.zeros(2 * height * width, dtype=torch.bool, device=image.device)
    claimed[crossings.slot[won]] = True
    won = won[crossings.acts[won]]
    crossings, near = crossings[won], near[won]
    with torch.no_grad():
        reach, inner = _continuation(crossings, near, ids, depth, claimed, max(height, width))
        step = colors[crossings.second] - colors[crossings.first]
        step += (reach * torch.sign(crossings.toward))[:, None] * (colors[near] - colors[inner])
    alpha = (0.5 - crossings.place)[:, None]
    change = alpha.detach() * (colors[crossings.second] - colors[crossings.first])
    # The color's step at the crossing drives the geometry, without changing the value.
    change = change + (alpha - alpha.detach()) * step
    receiver = torch.where(alpha[:, 0] > 0, crossings.first, crossings.second)
    return colors.index_add(0, receiver, change).view(height, width, channels)


def _silhouettes(clip: Tensor, edges: Tensor, opposite: Tensor) -> tuple[Tensor, Tensor]:
    """Which edges are silhouettes, and on which side of their screen line (a sign) the faces lie."""
    points = clip[:, [0, 1, 3]]
    p, q = points[edges[:, 0]], points[edges[:, 1]]
    normal = torch.linalg.cross(p, q - p)
    has_second = opposite[:, 1] >= 0
    first, second = points[opposite[:, 0]], points[opposite[:, 1].clamp_min(0)]
    side, other_side = (normal * (first - p)).sum(1), (normal * (second - p)).sum(1)
    hidden = ((side > 0) & (other_side < 0)) | ((side < 0) & (other_side > 0))
    ends = clip[edges[:, 0]], clip[edges[:, 1]]
    hidden |= (side == 0) & _needle(*ends, clip[opposite[:, 0]])
    hidden |= (other_side == 0) & _needle(*ends, clip[opposite[:, 1].clamp_min(0)])
    side = torch.where(has_second & ((side == 0) | ~side.isfinite()), other_side, side)
    shown = ~(hidden & has_second) & side.isfinite() & (side != 0)
    edge = shown.nonzero()[:, 0]
    return edge, torch.sign(side[edge])


def _needle(p: Tensor, q: Tensor, point: Tensor) -> Tensor:
    along, across = q - p, point - p
    squares = along.square().sum(1) * across.square().sum(1)
    return squares - (along * across).sum(1).square() <= SMALLEST_SINE**2 * squares


def _crossings(clip: Tensor, edges: Tensor, edge: Tensor, side: Tensor, height: int, width: int) -> _Crossings:
    """All crossings of the given silhouettes with rows and columns of pixel centers, between two pixels of the image."""
    with torch.no_grad():
        p, q = clip[edges[edge, 0]], clip[edges[edge, 1]]
        before_p, before_q = p[:, 2] + p[:, 3], q[:, 2] + q[:, 3]
        cut = before_p / (before_p - before_q)
        first_part = torch.where((before_p < 0) & (before_q > 0), cut, 0.0)[:, None]
        last_part = torch.where((before_q < 0) & (before_p > 0), cut, 1.0)[:, None]
        ends = [p + part * (q - p) for part in (first_part, last_part)]
        seen = (torch.maximum(before_p, before_q) >= 0) & (torch.minimum(*(end[:, 3] for end in ends)) >= SMALLEST_W)
        seen &= torch.stack([pixel_coordinates(end, height, width).isfinite().all(1) for end in ends]).all(0)
        normal = torch.linalg.cross(p[:, [0, 1, 3]], (q - p)[:, [0, 1, 3]])
        toward = torch.stack([normal[:, 0] * side, -normal[:, 1] * side])
    edge, toward, first_part, last_part = edge[seen], toward[:, seen], first_part[seen], last_part[seen]
    p, q = clip[edges[edge, 0]], clip[edges[edge, 1]]
    start, end = ((1 - part) * p + part * q for part in (first_part, last_part))
    inverse_w = torch.stack([1 / start[:, 3], 1 / end[:, 3]]).detach()
    start, end = pixel_coordinates(start, height, width), pixel_coordinates(end, height, width)
    flat = (end[:, 1] - start[:, 1]).abs() < (end[:, 0] - start[:, 0]).abs()
    found = []
    for vertical, lines, length in ((False, height, width), (True, width, height)):
        a, b = (start.flip(-1), end.flip(-1)) if vertical else (start, end)
        low, high = (
            (bound(a[:, 1], b[:, 1]).detach() - 0.5).clamp(0, lines).ceil().long()
            for bound in (torch.minimum, torch.maximum)
        )
        source, line = _ranges(low, high)
        part = (line + 0.5 - a[source, 1]) / (b[source, 1] - a[source, 1])
        place = a[source, 0] + part * (b[source, 0] - a[source, 0])
        inside = ((place >= 0.5) & (place < length - 0.5)).nonzero()[:, 0]
        source, line, part, place = source[inside], line[inside], part[inside].detach(), place[inside]
        index = (place - 0.5).long()
        found.append(
            _Crossings(
                edge=edge[source],
                vertical=torch.full_like(source, vertical, dtype=torch.bool),
                acts=flat[source] == vertical,
                toward=toward[int(vertical)][source],
                first=index * width + line if vertical else line * width + index,
                step=torch.full_like(source, width if vertical else 1),
                index=index,
                length=torch.full_like(source, length),
                place=place - 0.5 - index,
                inverse_w=inverse_w[0, source] + part * (inverse_w[1, source] - inverse_w[0, source]),
            )
        )
    return _Crossings(*(torch.cat([getattr(one, name) for one in found]) for name in _Crossings.__dataclass_fields__))


def _ranges(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Each whole number from `low` to `high` (exclusive) of each row, with the row it belongs to."""
    counts = (high - low).clamp_min(0)
    source = torch.repeat_interleave(torch.arange(len(low), device=low.device), counts)
    within = torch.arange(len(source), device=low.device) - (counts.cumsum(0) - counts)[source]
    return source, low[source] + within


def _first_per_slot(slot: Tensor, distance: Tensor, edge: Tensor, slots: int, edges: int) -> Tensor:
    """Indices of the crossings that are the first of their slot; of equal ones the lowest edge."""
    shortest = distance.new_full((slots,), torch.inf).scatter_reduce(0, slot, distance, "amin")
    tied = distance == shortest[slot]
    lowest = torch.full((slots,), edges, device=slot.device).scatter_reduce(0, slot[tied], edge[tied], "amin")
    return (tied & (edge == lowest[slot])).nonzero()[:, 0]


def _continuation(
    crossings: _Crossings, near: Tensor, ids: Tensor, depth: Tensor, claimed: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """How far the near color goes on to the crossing, in steps from the pixel inside, and that pixel; 0 if it cannot."""
    larger = crossings.toward > 0
    inner = near + torch.where(larger, crossings.step, -crossings.step)
    possible = torch.where(larger, crossings.index + 2 < crossings.length, crossings.index > 0)
    inner = torch.where(possible, inner, near)
    slot = 2 * torch.minimum(near, inner) + crossings.vertical.long()
    possible = possible & (ids[inner] >= 0) & ~claimed[slot]
    inner = torch.where(possible, inner, near)
    pixel = depth[near] / size
    ahead = (1 - crossings.distance) * pixel
    deeper, behind = 1 / crossings.inverse_w - depth[near], depth[near] - depth[inner]
    reach = ((ahead.square() + deeper.square()) / (pixel.square() + behind.square())).sqrt()
    return torch.where(possible, reach.clamp_max(FURTHEST_REACH), 0.0), inner
