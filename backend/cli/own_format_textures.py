"""New textures for an artist's OBJ file: its materials, copied into an MTL file beside it, with what has changed."""

from __future__ import annotations

from pathlib import Path

from backend.cli.own_format import Repainted
from backend.representations.files.disk import lines_of, read_beside
from backend.representations.files.mtl_reading import MAX_MTL_BYTES
from backend.representations.files.obj_writing import mtl_statements, one_line

_KEYWORDS = {
    "base_color": ("kd", "map_kd"),
    "metallic": ("pm", "map_pm"),
    "roughness": ("pr", "map_pr", "ns", "map_ns"),
    "normal": ("norm", "map_bump", "bump"),
    "emission": ("ke", "map_ke"),
}


def repaint_obj(content: bytes, folder: Path, repainted: Repainted, stem: str) -> tuple[bytes, dict[str, bytes]]:
    """An OBJ file that takes its materials from `stem.mtl`, and that file with its new textures.

    Every material that the file uses gets what is new; all else in its MTL files, in `folder`, stays. A file without
    materials gets one.
    """
    stem = "_".join(stem.split())  # readers cut names at spaces
    statements, textures = mtl_statements(repainted.material, stem)
    new = {name: lines for name, lines in statements.items() if name in repainted.properties}
    used_textures = {name: texels for name, texels in textures.items() if any(name in " ".join(v) for v in new.values())}
    lines = lines_of(content)
    used = [line.split(None, 1)[1].strip() for line in lines if line.startswith("usemtl") and len(line.split()) > 1]
    named = [line.split(None, 1) for line in lines if line.split()[:1] == ["mtllib"]]
    libraries = [words[1].strip() for words in named if len(words) > 1]
    lines = [line for line in lines if line.split()[:1] != ["mtllib"]]
    if not used:
        used = [one_line(repainted.material.name).encode().decode("latin-1")]
        first_face = next(index for index, line in enumerate(lines) if line.split()[:1] == ["f"])
        lines.insert(first_face, f"usemtl {used[0]}")
    found = [read_beside(folder, name.encode("latin-1").decode("utf-8", "replace"), MAX_MTL_BYTES) for name in libraries]
    library = [line for each in found if each is not None for line in lines_of(each)]
    written = _repainted_library(library, list(dict.fromkeys(used)), new)
    content = "\n".join([f"mtllib {stem}.mtl".encode().decode("latin-1"), *lines]) + "\n"
    return content.encode("latin-1"), used_textures | {f"{stem}.mtl": written.encode("latin-1")}


def _repainted_library(library: list[str], used: list[str], new: dict[str, list[str]]) -> str:
    """The lines of the MTL files with the lines of what is new replaced in the materials that are used."""
    old = {keyword for name in new for keyword in _KEYWORDS[name]}
    fresh = [line.encode().decode("latin-1") for lines in new.values() for line in lines]
    kept, inside, missing = [], False, list(used)
    for line in library:
        words = line.split(None, 1)
        keyword = words[0].lower() if words else ""
        if keyword == "newmtl":
            name = words[1].strip() if len(words) > 1 else ""
            inside = name in used
            kept.append(line)
            if name in missing:
                missing.remove(name)
                kept += fresh
        elif not (inside and keyword in old):
            kept.append(line)
    for name in missing:
        kept += [f"newmtl {name}", *fresh]
    return "\n".join(kept) + "\n"
