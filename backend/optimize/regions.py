"""Where a job may change its mesh: the masks of its regions, on the vertices and texels of the stage under way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backend.errors import InputError
from backend.optimize.inputs import RegionMask
from backend.optimize.objectives import Job
from backend.representations.closest_point import transfer_attributes
from backend.representations.masks import carried_mask, checked_mask, texel_mask, vertex_mask
from backend.representations.mesh_data import MeshData
from backend.representations.texel_map import map_texels
from protocol.settings import MeshStage


@dataclass(frozen=True, eq=False)
class Regions:
    """R regions of one mesh; what is outside all of them keeps its bits.

    Attributes:
        prompts: one for each, empty for the job's.
        vertices: `[R, V]` in [0, 1], on the CPU.
        texels: one `[H, W]` in [0, 1] for each, in the mesh's texture coordinates; None where it follows from the vertices.
    """

    prompts: tuple[str, ...]
    vertices: Tensor
    texels: tuple[Tensor | None, ...]

    def vertex_union(self) -> Tensor:
        """How far each vertex may change, [V]."""
        return self.vertices.amax(0)

    def texel_union(self) -> Tensor | None:
        """How far each texel may change, [H, W]; None unless all regions have texels of one size, as `on_texture` gives them."""
        return None if self.texels[0] is None else torch.stack(self.texels).amax(0)

    def for_stage(self, mesh: MeshData, textured: MeshData | None) -> Regions:
        """The same regions on what a stage makes of `mesh`: `textured`, if it paints a texture, else vertices alone.

        Raises:
            InputError: a region is too small for the mesh's vertices, and there is no texture.
        """
        if textured is not None:
            return self._on_texture(mesh, textured)
        for number, mask in enumerate(self.vertices, 1):
            if not bool(mask.any()):
                raise InputError(
                    f"Region {number} lies between the mesh's vertices and frees none of them; paint it larger, or paint a texture "
                    "instead of vertex colors."
                )
        return replace(self, texels=(None,) * len(self.texels))

    def _on_texture(self, mesh: MeshData, textured: MeshData) -> Regions:
        size = textured.material.base_color.shape[:2]
        shown = map_texels(textured, *size)
        given = zip(self.vertices, self.texels)
        texels = (texel_mask(of_vertices, textured, shown) if own is None else carried_mask(own, mesh, textured) for of_vertices, own in given)
        return replace(self, texels=tuple(texels))

    def carried(self, before: MeshData, after: MeshData, mask: Tensor) -> Regions:
        """From one topology of a surface to another, whose vertices may change as far as `mask` [V] says."""
        carried = transfer_attributes(after.positions, before.positions, before.faces, self.vertices.T.numpy())
        vertices = torch.from_numpy(carried.T.copy()).clamp(0.0, 1.0)
        return replace(self, vertices=torch.where(mask.cpu() > 0.0, vertices, 0.0), texels=(None,) * len(self.texels))

    def state_dict(self) -> dict[str, Any]:
        return {"prompts": list(self.prompts), "vertices": self.vertices.clone(), "texels": list(self.texels)}

    @staticmethod
    def from_state(state: dict[str, Any]) -> Regions:
        return Regions(tuple(state["prompts"]), state["vertices"], tuple(state["texels"]))


def regions_of(job: Job) -> Regions | None:
    """The regions of a job on its start mesh; None if all of it may change.

    Raises:
        InputError: masks and regions do not belong together, a mask does not fit the mesh or frees nothing, or there is nothing
            that masks could hold: no start mesh, or stages that make a shape of their own.
    """
    wanted, masks, mesh = job.settings.regions, job.inputs.regions, job.inputs.mesh
    if len(wanted) != len(masks):
        raise InputError(f"The job has {len(wanted)} regions, but {len(masks)} masks came with it; send one mask for each region.")
    if not masks:
        return None
    if mesh is None:
        raise InputError("Regions are parts of a mesh, but none was sent along; send a start mesh or leave out the regions.")
    if not all(isinstance(stage, MeshStage) for stage in job.settings.stages):
        raise InputError(
            "Regions hold a mesh where it is, but the recipe has a stage that makes a shape of its own; choose one with mesh "
            "stages alone, as refine and texture are."
        )
    vertices, texels = zip(*(_checked(number, mask, mesh) for number, mask in enumerate(masks, 1)))
    return Regions(tuple(region.prompt.strip() for region in wanted), torch.stack(vertices), texels)


def _checked(number: int, mask: RegionMask, mesh: MeshData) -> tuple[Tensor, Tensor | None]:
    if mask.vertices is None and mask.texels is None:
        raise InputError(f"Region {number} came without a mask; give it one of vertices or of texels.")
    texels = None
    if mask.texels is not None:
        shape = np.shape(mask.texels)
        texels = checked_mask(mask.texels, shape if len(shape) == 2 and min(shape) else (1, 1), "texels [H, W]")
    if mask.vertices is not None:
        vertices = checked_mask(mask.vertices, (len(mesh.positions),), "vertices")
    else:
        vertices = vertex_mask(texels, mesh)
    if not bool((vertices if texels is None else texels).any()):
        raise InputError(f"The mask of region {number} is 0 everywhere, so nothing may change; paint what may, in white.")
    return vertices, texels


def distinct_prompts(prompts: Sequence[str]) -> tuple[str, ...]:
    """Each prompt once, in order of appearance."""
    return tuple(dict.fromkeys(prompts))
