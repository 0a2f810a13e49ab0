"""Who may know whom: every import in the tree, read from the source, against the plan of the house.

A room may import itself, the rooms of its row and the third parties of its row; numpy, the standard library and the
modules that lie directly in `backend/` (`backend.errors`) are everybody's.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]


class Room(NamedTuple):
    """What a room may import: prefixes of our modules, and third parties' top-level names."""

    ours: frozenset[str]
    third_parties: frozenset[str]


def room(ours: str = "", third_parties: str = "") -> Room:
    return Room(frozenset(ours.split()), frozenset(third_parties.split()))


TOYBOX_MODEL = (
    "backend.toybox.model backend.toybox.unet backend.toybox.text backend.toybox.template backend.toybox.captions"
)
EVERYTHING_BELOW = (
    "backend.rendering backend.representations backend.cameras backend.losses backend.priors backend.distillation "
    "backend.recipes protocol"
)
ROOMS = {
    "protocol": room("", "zmq msgpack msgspec zstandard"),
    "backend.setup": room(),
    "backend.rendering": room("protocol.settings", "torch warp jaxtyping"),
    "backend.representations": room(
        "backend.rendering protocol.settings",
        "torch trimesh xatlas cholespy scipy skimage gpytoolbox manifold3d fast_simplification PIL jaxtyping",
    ),
    "backend.benchmark": room("backend.rendering backend.cameras", "torch"),
    "backend.cameras": room("protocol.settings", "torch jaxtyping"),
    "backend.losses": room("", "torch transformers safetensors jaxtyping"),
    "backend.priors": room(
        TOYBOX_MODEL + " protocol.settings", "torch diffusers transformers tokenizers safetensors psutil huggingface_hub jaxtyping"
    ),
    "backend.distillation": room("backend.priors.prior backend.priors.view_prompts protocol.settings", "torch peft jaxtyping"),
    "backend.recipes": room("protocol", "msgspec"),
    "backend.optimize": room(EVERYTHING_BELOW, "torch transformers msgspec safetensors cv2 jaxtyping"),
    "backend.toybox": room(
        "backend.rendering backend.representations backend.cameras protocol.settings",
        "torch diffusers transformers tokenizers safetensors trimesh manifold3d matplotlib PIL jaxtyping",
    ),
    "backend.evaluation": room(
        "backend.rendering backend.representations backend.cameras backend.toybox protocol.settings",
        "torch diffusers transformers safetensors trimesh scipy skimage matplotlib PIL jaxtyping",
    ),
    "backend.service": room(
        "protocol backend.optimize backend.recipes backend.priors backend.representations",
        "zmq msgpack msgspec psutil torch",
    ),
    "blender_addon": room("blender_addon.protocol", "bpy bl_ui bmesh mathutils"),
    "backend.cli": room(
        "protocol backend galatea", "torch warp PIL rich matplotlib trimesh scipy psutil msgspec huggingface_hub"
    ),
}
EXCEPTIONS = {
    "backend.clip_input": room("", "torch"),  # both priors and losses show CLIP pictures
    "backend.rendering.volume": room("", "nerfacc"),  # the one place that composites along rays
}


def modules() -> list[str]:
    """Every module of ours that ships, as a dotted name."""
    files = [file for room in ("protocol", "backend", "blender_addon") for file in (ROOT / room).glob("**/*.py")]
    return sorted(".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files)


def source_of(module: str) -> tuple[str, str, bool]:
    """A module's text, its name, and whether it is a package."""
    path = ROOT.joinpath(*module.split("."))
    package = (path / "__init__.py").exists()
    return (path / "__init__.py" if package else path.with_suffix(".py")).read_text(encoding="utf-8"), module, package


def imports(source: str, module: str, package: bool) -> set[str]:
    """The dotted names that a source imports, wherever the import stands; relative ones resolved."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = (
                module.split(".")[: None if package and node.level == 1 else -node.level + package]
                if node.level
                else []
            )
            base = ".".join([*parents, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def is_within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def forbidden(module: str, imported: str) -> bool:
    """Whether the plan keeps `module` from importing `imported`."""
    home = next((name for name in ROOMS if is_within(module, name)), None)
    row = ROOMS[home] if home else room()
    extra = EXCEPTIONS.get(module, room())
    top = imported.split(".")[0]
    if top in ("backend", "protocol", "galatea", "blender_addon"):
        allowed = {*row.ours, *extra.ours, *([home] if home else [])}
        return not (is_everybodys(imported) or any(is_within(imported, prefix) for prefix in allowed))
    return not (top in sys.stdlib_module_names or top == "numpy" or top in row.third_parties | extra.third_parties)


def is_everybodys(imported: str) -> bool:
    """Modules directly in backend/, and names in them; they import nothing of ours (held below)."""
    parts = imported.split(".")
    return parts[0] == "backend" and len(parts) > 1 and (ROOT / "backend" / f"{parts[1]}.py").exists()


def test_modules_import_only_what_their_room_may_know() -> None:
    wrong = {
        module: sorted(name for name in imports(*source_of(module)) if forbidden(module, name)) for module in modules()
    }
    assert {module: names for module, names in wrong.items() if names} == {}


def test_every_room_has_a_row() -> None:
    rooms = {f"backend.{folder.name}" for folder in (ROOT / "backend").iterdir() if (folder / "__init__.py").exists()}
    assert rooms <= set(ROOMS)


def test_tests_have_no_packages() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py")), "they would shadow backend and protocol"


@pytest.mark.parametrize(
    ("module", "line", "caught"),
    [
        ("backend.rendering.render", "from backend.priors import toybox", True),
        ("backend.rendering.render", "import nerfacc", True),
        ("backend.rendering.volume", "import nerfacc", False),
        ("backend.rendering.render", "from protocol.messages import Job", True),
        ("backend.rendering.render", "from protocol.settings import LightSettings", False),
        ("backend.rendering.render", "from .fragments import Fragments", False),
        ("backend.rendering.render", "from ..priors import prior", True),
        ("backend.distillation.sds", "from backend.priors.prior import Prior", False),
        ("backend.distillation.sds", "from backend.priors.toybox import ToyboxPrior", True),
        ("backend.priors.toybox", "from backend.toybox.training import train", True),
        ("protocol.settings", "import torch", True),
        ("protocol.settings", "def late():\n    import torch", True),
        ("backend.recipes.load", "from backend.errors import InputError", False),
        ("backend.errors", "from backend.rendering import render", True),
    ],
)
def test_the_rule_itself(module: str, line: str, caught: bool) -> None:
    assert any(forbidden(module, name) for name in imports(line, module, package=False)) == caught
