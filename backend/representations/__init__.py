"""What is optimized (grids and meshes), how one becomes the other, and how meshes are read, checked and written.

Reading and repairing bring slow libraries along: they are imported when they are first asked for, since whoever needs a
`MeshData` alone should not wait for them.
"""

from typing import Any

from backend.representations.mesh_data import MeshData

__all__ = ["MeshData", "check_and_repair", "load_mesh", "make_sound", "write_glb", "write_mesh"]  # noqa: F822 (below)


def __getattr__(name: str) -> Any:
    if name in ("load_mesh", "write_glb", "write_mesh"):
        from backend.representations import mesh_io

        return getattr(mesh_io, name)
    if name in ("check_and_repair", "make_sound"):
        from backend.representations import repair

        return getattr(repair, name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
