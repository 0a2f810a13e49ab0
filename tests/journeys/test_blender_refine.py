"""Refining an artist's mesh from Blender's panel: all that was on it comes back, and only vertices and colors moved."""

from __future__ import annotations

import copy
from pathlib import Path

from tests.blender.blender import Blender
from tests.journeys.service import Service

SCRIPT = Path(__file__).parent / "inside" / "refining.py"
REQUEST = {"prompt": "a red mug with a black handle", "steps": 12, "seed": 2}


def refine(blender: Blender, service: Service, folder: Path, end: str, shared: bool = False) -> dict:
    return blender.run(
        SCRIPT, REQUEST, folder, end, shared, 90.0,
        function="refine", extension="installed", timeout=150,
        variables={"GALATEA_SERVICE_FOLDER": str(service.folder)},
    )  # fmt: skip


def without(state: dict, *names: str) -> dict:
    """The state of an object without some of its mesh's layers."""
    kept = copy.deepcopy(state)
    for name in names:
        kept["layers"].pop(name, None)
    return kept


def test_accepted_mesh_keeps_all_but_positions_and_colors(blender: Blender, service: Service, tmp_path: Path) -> None:
    told = refine(blender, service, tmp_path, "accept")
    before, after = told["before"], told["after"]
    assert told["hidden"] and len({update["positions"] for update in told["updates"]}) >= 3
    assert {update["vertices"] for update in told["updates"]} == {told["updates"][0]["vertices"]}
    assert after["layers"]["position"] != before["layers"]["position"] and told["moved"] > 0.01

    new = set(after["layers"]) - set(before["layers"])
    assert len(new) == 1 and "COLOR" in after["layers"][min(new)], "one layer is new: the colors"
    assert without(after, "position", *new) == without(before, "position")
    assert told["there_after"] == told["there_before"]
    assert told["undone"] == before, "one undo brings the mesh back bit for bit"
    assert told["there_undone"] == told["there_before"]
    assert told["redone"] == after


def test_discarding_leaves_every_bit_as_it_was(blender: Blender, service: Service, tmp_path: Path) -> None:
    told = refine(blender, service, tmp_path, "discard")
    assert told["updates"] and told["after"] == told["before"]
    assert told["there_after"] == told["there_before"]


def test_a_mesh_of_two_objects_is_made_single_and_said_so(blender: Blender, service: Service, tmp_path: Path) -> None:
    told = refine(blender, service, tmp_path, "accept", shared=True)
    assert told["after"]["layers"]["position"] != told["before"]["layers"]["position"]
    assert told["twin"]["layers"] == told["before"]["layers"], "the other object keeps the mesh as it was"
    assert any("shared by 2 objects" in note and "Mug" in note for note in told["notes"]), told["notes"]


def test_a_copy_leaves_the_original_alone(blender: Blender, service: Service, tmp_path: Path) -> None:
    told = refine(blender, service, tmp_path, "keep_copy")
    assert told["after"] == told["before"]
    assert len(told["there_after"]) == len(told["there_before"]) + 1
    assert told["copy"]["layers"]["position"] != told["before"]["layers"]["position"]
    assert told["copy"]["weights"] == told["before"]["weights"] and told["copy"]["uv"] == told["before"]["uv"]


def test_of_a_region_only_the_inside_moves(blender: Blender, service: Service, tmp_path: Path) -> None:
    """Toward a prompt of its own and a picture; positions outside are the artist's bits."""
    told = blender.run(
        SCRIPT, {**REQUEST, "strength": 1.0}, tmp_path, 90.0,
        function="refine_region", extension="installed", timeout=150,
        variables={"GALATEA_SERVICE_FOLDER": str(service.folder)},
    )  # fmt: skip
    assert told["outside"] > 20 and told["moved_outside"] == 0
    assert told["inside"] > 20 and told["moved_inside"] == told["inside"]
    assert told["group"] == "upper" and told["diagnosed"]
