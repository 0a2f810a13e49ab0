"""A material whose textures are optimized, for a mesh whose texture coordinates do not change.

Only texels that show the surface are free. What filters read around a chart follows its nearest texel, unless a mask
keeps it, so charts keep apart whatever the optimizer does. A texel that did not change, and one between charts whose
nearest texel did not change, come back with their bits.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from backend.errors import InputError
from backend.rendering import highest_safe_level, texture
from backend.rendering.material import Material
from backend.representations.gradient_gate import GradientGate
from backend.representations.masks import checked_mask, let_through, resized_mask
from backend.representations.mesh_data import MaterialData, MeshData
from backend.representations.texel_map import TexelMap, map_texels

NAMES = ("base_color", "metallic", "roughness", "normal", "emission")


class Appearance:
    """Parameters: one tensor [H, W, C] for each property of the material that is a texture, each of its own size."""

    def __init__(self, mesh: MeshData, mask: Tensor | np.ndarray | None, device: torch.device) -> None:
        """`mask` [H, W] in [0, 1] of the base color's size gates all textures; others sample it.

        Raises:
            InputError: the mesh has no material with a base color texture, no usable texture coordinates, or the mask
                does not fit.
        """
        if mesh.material is None or np.ndim(mesh.material.base_color) != 3:
            raise InputError("The mesh has no base color texture to optimize; bake its colors first.")
        self.material = mesh.material
        self._maps: dict[tuple[int, int], TexelMap] = {}
        self._layers: dict[str, _Layer] = {}
        if mask is not None:
            mask = checked_mask(mask, np.shape(mesh.material.base_color)[:2], "texels of the base color")
        for name in NAMES:
            values = getattr(mesh.material, name)
            if np.ndim(values) < 2:
                continue
            size = values.shape[:2]
            if size not in self._maps:
                self._maps[size] = map_texels(mesh, *size)
            own_mask = None if mask is None else resized_mask(mask, size).to(device)
            self._layers[name] = _Layer(values, self._maps[size], own_mask, name == "normal", device)
        base = self._maps[mesh.material.base_color.shape[:2]]
        self._base_map, self._device = base, device
        self.highest_level = highest_safe_level(*base.face.shape, base.margin)
        """The smallest mip map of the base color in which charts keep apart."""
        self._uv = torch.from_numpy(np.ascontiguousarray(mesh.uvs[mesh.uv_faces], np.float32)).view(1, 1, -1, 2)
        self._corner_vertex = torch.from_numpy(mesh.faces.reshape(-1).astype(np.int64))
        self._vertex_count = len(mesh.positions)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """What the optimizers move, by the material's property."""
        return {name: layer.values for name, layer in self._layers.items()}

    @cached_property
    def base_color_texels(self) -> tuple[Tensor, Tensor]:
        """The texels of the base color that show the surface, flat indices [T], and pairs [E, 2] of rows of that list that lie
        side by side in one chart."""
        texels, pairs = self._base_map.side_by_side()
        return torch.from_numpy(texels).to(self._device), torch.from_numpy(pairs).to(self._device)

    def for_rendering(self) -> Material:
        """The material as it is now; differentiable in the parameters."""
        device = self.parameters["base_color"].device

        def shown(name: str) -> Tensor | None:
            values = getattr(self.material, name)
            if name in self._layers:
                return self._layers[name].shown()
            return None if values is None else torch.tensor(np.atleast_1d(values), dtype=torch.float32, device=device)

        return Material(*(shown(name) for name in NAMES))

    def weigh_gradients(self, weights: Tensor | None) -> None:
        """From now on multiply what reaches the texels in backward passes by `weights` [H, W]; None lets all of it through."""
        for layer in self._layers.values():
            if weights is None:
                layer.gate.weights = None
            else:
                size = layer.values.shape[:2]
                layer.gate.weights = torch.nn.functional.interpolate(weights[None, None], size, mode="nearest")[0, 0, :, :, None]

    def changed(self) -> bool:
        """Whether any texel of the surface differs from the start's."""
        return any(bool(layer.changed().any()) for layer in self._layers.values())

    def to_material(self) -> MaterialData:
        """The material as it is now; textures that nothing changed are the start's own arrays' copies."""
        return replace(self.material, **{name: layer.to_array() for name, layer in self._layers.items()})

    def vertex_colors(self, start: bool = False) -> np.ndarray:
        """The base color at each vertex [V, 3], the mean where it has several places in the texture; gray without faces.

        `start`: of the material that it began with.
        """
        image = self.material.base_color if start else self._layers["base_color"].to_array()
        seen = texture(torch.from_numpy(np.ascontiguousarray(image, np.float32)), self._uv)[0, 0]
        total = torch.zeros(self._vertex_count, 3).index_add(0, self._corner_vertex, seen)
        count = torch.bincount(self._corner_vertex, minlength=self._vertex_count)[:, None]
        return torch.where(count > 0, total / count.clamp_min(1), 0.5).clamp(0.0, 1.0).numpy()


class _Layer:
    """One texture: where it began, where it is, and which of its texels are free."""

    def __init__(
        self, start: np.ndarray, texels: TexelMap, mask: Tensor | None, is_normal: bool, device: torch.device
    ) -> None:
        self._array = start
        self._is_normal = is_normal
        self._texels = texels
        tensor = torch.tensor(np.ascontiguousarray(start), dtype=torch.float32, device=device)
        self._start = tensor if tensor.dim() == 3 else tensor[..., None]
        self._mask = None if mask is None else mask[..., None]
        self.values = self._start.clone().requires_grad_()
        self.gate = GradientGate()
        source, distance = texels.nearest
        level = highest_safe_level(*texels.face.shape, texels.margin)
        # A filter reads 1.5 texels of its level; the texels beside them make up that level's.
        beside = np.flatnonzero((distance > 0) & (distance <= 2.0 * 2.0 ** (level + 1)) & self._may_change())
        self._beside = torch.from_numpy(beside).to(device)
        self._source = torch.from_numpy(source.reshape(-1)[beside]).to(device)

    def shown(self) -> Tensor:
        values = self.gate(self.values)
        values = values if self._mask is None else let_through(self._start, values, self._mask)
        return _Show.apply(values, self._beside, self._source, not self._is_normal)

    def changed(self) -> np.ndarray:
        """Texels [H, W] of the surface that differ from the start."""
        return (self._now() != self._start.cpu().numpy()).any(axis=2) & self._texels.covered

    def to_array(self) -> np.ndarray:
        changed = self.changed()
        now = self._now()
        if self._is_normal:
            now = now / np.maximum(np.linalg.norm(now, axis=2, keepdims=True), 1e-12)
        result = self._start.cpu().numpy().copy()
        follow = changed.reshape(-1)[self._texels.nearest[0]] & self._may_change()
        result[follow] = self._texels.fill(now)[follow]
        return result.reshape(self._array.shape)

    def _may_change(self) -> np.ndarray:
        """[H, W]: all texels but those that the mask keeps, also between charts."""
        if self._mask is None:
            return np.ones(self._texels.face.shape, dtype=bool)
        return self._mask[..., 0].cpu().numpy() > 0.0

    def _now(self) -> np.ndarray:
        with torch.no_grad():
            values = self.values if self._mask is None else let_through(self._start, self.values, self._mask)
            return (values if self._is_normal else values.clamp(0.0, 1.0)).cpu().numpy()


class _Show(torch.autograd.Function):
    """Clamp to [0, 1] and let the texels beside the charts follow the charts'; both with their gradients.

    As one step over the texture: it has a million numbers, of which a picture reads a part.
    """

    @staticmethod
    def forward(ctx, values: Tensor, beside: Tensor, source: Tensor, in_range: bool) -> Tensor:
        ctx.save_for_backward(values, beside, source)
        ctx.in_range = in_range
        shown = values.clamp(0.0, 1.0) if in_range else values.clone()
        flat = shown.view(-1, shown.shape[-1])
        flat[beside] = flat[source]
        return shown

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        values, beside, source = ctx.saved_tensors
        gradient = gradient.clone()
        flat = gradient.view(-1, gradient.shape[-1])
        followed = flat[beside]
        flat[beside] = 0.0
        flat.index_add_(0, source, followed)
        if ctx.in_range:  # no further outside
            outward = ((values <= 0.0) & (gradient > 0.0)) | ((values >= 1.0) & (gradient < 0.0))
            gradient.masked_fill_(outward, 0.0)
        return gradient, None, None, None
