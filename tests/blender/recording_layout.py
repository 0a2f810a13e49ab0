"""A layout that draws nothing and takes down what it was told, as strictly as Blender's: within Blender only.

Unknown functions, parameters, icons, properties and operators raise, where Blender would print or draw something wrong.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import bpy

FUNCTIONS = bpy.types.UILayout.bl_rna.functions
PROPERTIES = bpy.types.UILayout.bl_rna.properties
OF_PYTHON = {
    "prop": ("data", "property"),
    "prop_search": ("data", "property", "search_data", "search_property"),
    "operator": ("operator",),
    "menu": ("menu",),
    "panel": ("idname",),
    "label": (),
}


class RecordingLayout:
    """`texts`, `operators` (idname -> what was set) and `props` collect what is on the panel; sub-layouts share them."""

    def __init__(self, parent: RecordingLayout | None = None) -> None:
        for name, empty in (("texts", []), ("operators", []), ("props", [])):
            object.__setattr__(self, name, getattr(parent, name) if parent else empty)

    def __setattr__(self, name: str, value: object) -> None:
        if name not in PROPERTIES or PROPERTIES[name].is_readonly:
            raise AttributeError(f"a layout has no {name} to set")

    def __getattr__(self, name: str) -> Any:
        if name not in FUNCTIONS:
            raise AttributeError(f"a layout has no {name}")
        return lambda *arguments, **keywords: self._call(name, arguments, keywords)

    def _call(self, name: str, arguments: tuple, keywords: dict[str, object]) -> object:
        parameters = FUNCTIONS[name].parameters
        given = dict(zip(OF_PYTHON.get(name, ()), arguments, strict=True)) | keywords
        for key, value in given.items():
            check_value(name, parameters[key], value)
        if "text" in given:
            self.texts.append(given["text"])
        match name:
            case "prop" | "prop_search":
                check_property(given["data"], given["property"])
                self.props.append(given["property"])
                if name == "prop_search":
                    check_property(given["search_data"], given["search_property"])
            case "operator":
                return self._operator(str(given["operator"]))
            case "menu":
                if not hasattr(bpy.types, str(given["menu"])):
                    raise ValueError(f"there is no menu {given['menu']}")
            case "panel":
                return RecordingLayout(self), RecordingLayout(self)
        return RecordingLayout(self)

    def _operator(self, idname: str) -> object:
        module, _, function = idname.partition(".")
        kind = getattr(getattr(bpy.ops, module), function).get_rna_type()  # raises KeyError if there is none
        values = StrictProperties(kind)
        self.operators.append((idname, values))
        return values

    def buttons(self) -> list[str]:
        return [idname for idname, _ in self.operators]


class StrictProperties(SimpleNamespace):
    """What an operator's button sets."""

    def __init__(self, kind: Any) -> None:
        object.__setattr__(self, "_kind", kind)

    def __setattr__(self, name: str, value: object) -> None:
        if name not in self._kind.properties:
            raise AttributeError(f"{self._kind.identifier} has no property {name}")
        object.__setattr__(self, name, value)


def check_value(function: str, parameter: Any, value: object) -> None:
    kinds = {"STRING": str, "BOOLEAN": bool, "INT": int, "FLOAT": (int, float)}
    if parameter.type in kinds and not isinstance(value, kinds[parameter.type]):
        raise TypeError(f"{function}: {parameter.identifier} is {value!r}, not of type {parameter.type}")
    if parameter.type == "ENUM" and value not in {item.identifier for item in parameter.enum_items}:
        raise TypeError(f"{function}: there is no {parameter.identifier} {value!r}")


def check_property(data: Any, name: str) -> None:
    if name not in data.bl_rna.properties:
        raise AttributeError(f"{data.bl_rna.identifier} has no property {name}")


class Context:
    """Blender's context, with a region of a given width."""

    def __init__(self, width: int) -> None:
        self.region = SimpleNamespace(width=width)

    def __getattr__(self, name: str) -> Any:
        return getattr(bpy.context, name)


def draw(panel: Any, width: int = 300) -> RecordingLayout:
    """What a panel (or preferences, or a menu) puts on the screen."""
    layout = RecordingLayout()
    if isinstance(panel, type):
        shell = SimpleNamespace(layout=layout)
        panel.draw(shell, Context(width))
    else:
        shell = SelfWithLayout(panel, layout)
        type(panel).draw(shell, Context(width))
    return layout


class SelfWithLayout:
    """The preferences' own object, which outside of a region has no layout."""

    def __init__(self, inner: Any, layout: RecordingLayout) -> None:
        self.__dict__.update(inner=inner, layout=layout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @property
    def bl_rna(self) -> Any:
        return self.inner.bl_rna
