"""Materials between their two forms: `MaterialData` (arrays, as files and jobs have them) and `Material` (tensors)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from backend.errors import InputError
from backend.rendering.material import CHANNELS, Material
from backend.representations.mesh_data import MaterialData


def to_tensors(data: MaterialData, device: torch.device | str = "cpu") -> Material:
    """The material's arrays and numbers as float32 tensors on `device`."""

    def tensor(values: np.ndarray | float | None, channels: int) -> Tensor | None:
        if values is None:
            return None
        array = np.atleast_1d(np.array(values, dtype=np.float32))
        return torch.from_numpy(array[..., None] if channels == 1 and array.ndim == 2 else array).to(device)

    return Material(*(tensor(getattr(data, name), channels) for name, channels in CHANNELS.items()))


def to_arrays(material: Material, name: str = "Galatea") -> MaterialData:
    """The material as arrays: values within [0, 1], normals of unit length, single numbers for metallic and roughness.

    Raises:
        InputError: a property has one value a vertex; bake it to a texture first.
    """
    for property_name in CHANNELS:
        values: Tensor | None = getattr(material, property_name)
        if values is not None and values.dim() == 2:
            raise InputError(f"{property_name} has one value a vertex; bake it to a texture before the material is stored.")

    def colors(values: Tensor | None) -> np.ndarray | None:
        return None if values is None else values.detach().clamp(0.0, 1.0).cpu().numpy()

    def numbers(values: Tensor) -> np.ndarray | float:
        array = colors(values)[..., 0]
        return array if array.ndim else float(array)

    normal = material.normal
    if normal is not None:
        normal = torch.nn.functional.normalize(normal.detach(), dim=-1, eps=1e-8).cpu().numpy()
    return MaterialData(
        colors(material.base_color),
        numbers(material.metallic),
        numbers(material.roughness),
        normal,
        colors(material.emission),
        name,
    )
