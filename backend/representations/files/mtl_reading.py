"""MTL files: the materials that an OBJ file names.

MTL never said whether its colors are linear. Blender writes linear ones, so files that Blender (or we) wrote are read so;
those of other programs are taken as displayed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from backend.representations.files.disk import read_beside, text_of
from backend.representations.files.images import (
    MAX_BYTES,
    ImageShelf,
    channel,
    linear_to_srgb,
    normal_from_bytes,
    tinted,
)
from backend.representations.mesh_data import MaterialData

MAX_MTL_BYTES = 1 << 24
GRAY = 0.8
_LINEAR = (b"# Blender", b"# Galatea")
_NUMBERS_AFTER = {"-s": 3, "-o": 3, "-t": 3, "-mm": 2, "-bm": 1, "-boost": 1, "-texres": 1}
_WORDS_AFTER = ("-blendu", "-blendv", "-cc", "-clamp", "-imfchan", "-type")


def read_materials(
    folder: Path, libraries: list[str], names: list[str], shelf: ImageShelf
) -> tuple[list[MaterialData], frozenset[int]]:
    """The materials `names` of an OBJ file in `folder`, and which of them no library describes; these are plain gray."""
    statements: dict[str, dict[str, str]] = {}
    for library in libraries:
        content = read_beside(folder, library, MAX_MTL_BYTES)
        if content is None:
            shelf.notes.append(f"The material file {library} is not in the mesh's folder.")
            continue
        linear = content.lstrip(b"\xef\xbb\xbf").startswith(_LINEAR)
        for name, found in _statements(content).items():
            statements.setdefault(name, found | ({"linear": ""} if linear else {}))
    unknown = frozenset(index for index, name in enumerate(names) if name not in statements)
    return [_material(folder, name, statements.get(name, {}), shelf) for name in names], unknown


def _statements(content: bytes) -> dict[str, dict[str, str]]:
    """Keyword to the rest of its line, in lower case but for map files, for each material."""
    found: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in content.splitlines():
        keyword, _, rest = text_of(line).strip().replace("\t", " ").partition(" ")
        if keyword == "newmtl":
            current = found.setdefault(rest.strip(), {})
        elif keyword and not keyword.startswith("#"):
            current[keyword.lower()] = rest.strip()
    return found


def _material(folder: Path, name: str, said: dict[str, str], shelf: ImageShelf) -> MaterialData:
    images = {}
    for slot, keywords in {
        "color": ("map_kd",),
        "metallic": ("map_pm",),
        "roughness": ("map_pr",),
        "emission": ("map_ke",),
        "normal": ("norm", "map_bump", "bump"),
    }.items():
        reference = next((said[keyword] for keyword in keywords if keyword in said), None)
        images[slot] = None if reference is None else _image(folder, reference, shelf)
    if _number(said.get("d", "")) not in (None, 1.0) or "map_d" in said:
        shelf.notes.append(f"The material “{name}” is transparent in places; it is read as opaque.")
    normal = images["normal"]
    if normal is not None and (normal[..., 0] == normal[..., 1]).all() and (normal[..., 1] == normal[..., 2]).all():
        shelf.notes.append(f"The bump map of “{name}” holds heights, not directions, and is left out.")
        normal = None
    glow = _color(said, "ke")
    shines = images["emission"] is not None or (glow is not None and glow.any())
    plain = _color(said, "kd")
    plain = np.full(3, GRAY, np.float32) if plain is None else plain
    return MaterialData(
        plain if images["color"] is None else tinted(images["color"], np.ones(3)),
        channel(images["metallic"], 0, 1.0 if images["metallic"] is not None else _number(said.get("pm", "")) or 0.0),
        channel(images["roughness"], 0, 1.0 if images["roughness"] is not None else _roughness(said)),
        None if normal is None else normal_from_bytes(normal),
        (tinted(images["emission"], np.ones(3)) if images["emission"] is not None else glow) if shines else None,
        name,
    )


def _roughness(said: dict[str, str]) -> float:
    """Without the keyword for it, from the shininess, by the formula that Blender writes that with."""
    given, shininess = _number(said.get("pr", "")), _number(said.get("ns", ""))
    if given is not None:
        return given
    return 0.5 if shininess is None else 1.0 - (min(max(shininess, 0.0), 1000.0) / 1000.0) ** 0.5


def _color(said: dict[str, str], keyword: str) -> np.ndarray | None:
    """A color as displayed [3]."""
    words = said.get(keyword, "").split()[:3]
    values = [_number(word) for word in words]
    if not values or None in values:
        return None
    color = np.array(values if len(values) == 3 else values[:1] * 3, dtype=np.float64).clip(0.0, 1.0)
    return (linear_to_srgb(color) if "linear" in said else color).astype(np.float32)


def _number(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _image(folder: Path, reference: str, shelf: ImageShelf) -> np.ndarray | None:
    """The image of a map statement, its options left aside."""
    words = reference.split(" ")
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option in _WORDS_AFTER:
            del words[:1]
        values = []
        while words and len(values) < _NUMBERS_AFTER.get(option, 0) and _number(words[0]) is not None:
            values.append(_number(words.pop(0)))
        if (option == "-s" and set(values) - {1.0}) or (option == "-o" and set(values) - {0.0}):
            shelf.notes.append("A texture is scaled or shifted by its material; it is read without that.")
    name = " ".join(words).strip().strip('"')
    label = name.replace("\\", "/").rsplit("/", 1)[-1]
    if "<UDIM>" in name:
        shelf.notes.append(f"Of the tiled texture {label} only tile 1001 is read.")
        name = name.replace("<UDIM>", "1001")
    return shelf.decode(name, label, lambda: read_beside(folder, name, MAX_BYTES))
