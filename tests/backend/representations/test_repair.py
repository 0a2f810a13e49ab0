"""Bad meshes are refused with one sentence, odd ones noted and left alone, our own made sound."""

from __future__ import annotations

import numpy as np
import pytest

from backend.errors import InputError
from backend.representations import mesh_checks, repair
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import icosphere
from backend.representations.repair import check_and_repair, inverted_share, make_sound
from backend.representations.soundness import soundness

BALL = icosphere(1)


def with_positions(change) -> MeshData:
    positions = BALL.positions.copy()
    change(positions)
    return MeshData(positions, BALL.faces)


def with_faces(faces: np.ndarray) -> MeshData:
    return MeshData(BALL.positions, np.asarray(faces))


def set_entry(row: int, value: float):
    def change(positions: np.ndarray) -> None:
        positions[row, 1] = value

    return change


@pytest.mark.parametrize(
    ("mesh", "words"),
    [
        (with_positions(set_entry(7, np.nan)), "vertex 7"),
        (with_positions(set_entry(3, np.inf)), "not numbers"),
        (with_positions(set_entry(3, 1e30)), "scale it down"),
        (with_faces(np.zeros((0, 3), "i4")), "nothing to optimize"),
        (MeshData(np.zeros((0, 3), "f4"), np.zeros((0, 3), "i4")), "0 vertices"),
        (with_faces(BALL.faces + 1), "names vertex 42"),
        (with_faces(BALL.faces - 1), "names vertex -1"),
        (with_positions(lambda p: p.__imul__([1, 0, 0])), "no area"),
        (with_faces(BALL.faces.astype(np.float32)), "integers"),
        (with_faces(BALL.faces[:, :2]), "triangles"),
        (MeshData(BALL.positions, BALL.faces, np.full((3, 3), 0.5)), "colors"),
        (MeshData(BALL.positions, BALL.faces, np.full((42, 3), np.nan)), "colors"),
    ],
)
def test_unusable_meshes_are_refused_with_what_to_do(mesh, words):
    with pytest.raises(InputError) as error:
        check_and_repair(mesh)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_too_many_faces_are_refused_before_anything_slow(monkeypatch):
    monkeypatch.setattr(mesh_checks, "MAX_FACES", 10)
    with pytest.raises(InputError, match="80 faces; at most 10"):
        check_and_repair(BALL)


def test_an_ordinary_mesh_comes_back_as_it_is_without_notes():
    checked, notes = check_and_repair(MeshData(np.asfortranarray(BALL.positions), BALL.faces.astype("i8"), BALL.colors))
    assert notes == []
    assert checked.positions.flags.c_contiguous and checked.faces.dtype == np.int32
    for name in ("positions", "faces", "colors"):
        np.testing.assert_array_equal(getattr(checked, name), getattr(BALL, name))


def test_odd_meshes_are_used_as_they_are_and_noted():
    positions = np.concatenate([BALL.positions, BALL.positions[:1], [[5, 5, 5]]]).astype("f4")
    faces = BALL.faces.copy()
    faces[0] = np.where(faces[0] == 0, 42, faces[0])
    faces = faces[:-1]
    checked, notes = check_and_repair(MeshData(positions, faces))
    np.testing.assert_array_equal(checked.positions, positions)
    np.testing.assert_array_equal(checked.faces, faces)
    told = " ".join(notes)
    for words in ("1 vertex that no face uses", "1 vertex lie", "open"):
        assert words in told
    told = " ".join(check_and_repair(with_faces(np.concatenate([BALL.faces, [[0, 0, 5]]])))[1])
    assert "1 face without area will be kept" in told
    told = " ".join(check_and_repair(with_faces(BALL.faces[:, ::-1]))[1])
    assert "inward" in told
    told = " ".join(check_and_repair(with_faces(np.concatenate([BALL.faces, BALL.faces[:1]])))[1])
    assert "not manifold" in told


def test_a_sound_mesh_is_returned_as_it_is():
    same = make_sound(BALL)
    np.testing.assert_array_equal(same.positions, BALL.positions)
    np.testing.assert_array_equal(same.faces, BALL.faces)
    np.testing.assert_array_equal(same.colors, BALL.colors)


def test_a_mesh_pushed_through_itself_is_rebuilt_with_its_colors(monkeypatch):
    monkeypatch.setattr(repair, "REBUILD_RESOLUTION", 48)
    ball = icosphere(3)
    positions = ball.positions.copy()
    positions[positions[:, 1] > 0.45, 1] -= 1.35  # the cap comes out below
    colors = np.where(positions[:, :1] > 0, [[1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]]).astype("f4")
    folded = MeshData(positions, ball.faces, colors)
    assert soundness(folded).sound  # topology alone does not see it
    assert inverted_share(folded) > 0.05
    rebuilt = make_sound(folded)
    assert soundness(rebuilt).sound
    assert inverted_share(rebuilt) == 0.0
    assert 0.7 * len(positions) < len(rebuilt.positions) < 1.3 * len(positions)
    right = rebuilt.positions[:, 0] > 0.1
    np.testing.assert_allclose(rebuilt.colors[right].mean(axis=0), [1, 0, 0], atol=0.02)


def test_holes_and_a_flipped_face_are_mended(monkeypatch):
    monkeypatch.setattr(repair, "REBUILD_RESOLUTION", 40)
    ball = icosphere(3)
    broken = MeshData(ball.positions, np.concatenate([ball.faces[5:], ball.faces[:1, ::-1]]))
    mended = make_sound(broken)
    facts = soundness(mended)
    assert facts.sound and facts.euler == 2
    assert facts.volume == pytest.approx(soundness(ball).volume, rel=0.03)
    assert mended.colors is None
