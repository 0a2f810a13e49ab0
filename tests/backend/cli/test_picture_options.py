"""--image and its kin: how files are read, what a job keeps of them, and what is refused with a sentence."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from backend.cli import generate, refine
from backend.cli.job_arguments import JobFile, hold_to_stored
from backend.cli.picture_arguments import GivenPicture, PictureSource, parse_picture
from backend.cli.picture_files import ReadPictures, read_picture
from backend.cli.reference_comparison import compare_with_references, references_section
from backend.errors import InputError
from backend.optimize.inputs import Picture
from backend.optimize.pictures import render_views
from backend.recipes import load_recipe
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import icosphere
from protocol.settings import JobSettings, ReferenceSettings

COLORS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]], [[0, 0, 0], [90, 120, 150]]], np.uint8)
"""3 rows, 2 columns."""


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def parsed(module, *words: str) -> argparse.Namespace:  # noqa: ANN001
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args(words)


def blob(name: str = "mug.png", size: int = 40) -> Path:
    """A red disk on nothing."""
    y, x = np.mgrid[:size, :size] - size / 2
    pixels = np.zeros((size, size, 4), np.uint8)
    pixels[np.hypot(x, y) < size / 3] = (220, 30, 30, 255)
    Image.fromarray(pixels).save(name)
    return Path(name)


def saved(image: Image.Image, name: str, **how: object) -> np.ndarray:
    image.save(name, **how)
    return read_picture(GivenPicture(Path(name))).pixels


# Files.


def test_modes_of_pictures_are_read_as_they_are_meant() -> None:
    rgb = Image.fromarray(COLORS)
    assert np.array_equal(saved(rgb, "plain.png")[..., :3], COLORS)
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), mode="P")
    palette.putpalette([10, 20, 30, 200, 210, 220])
    assert saved(palette, "palette.png", transparency=1)[0].tolist() == [[10, 20, 30, 255], [200, 210, 220, 0]]
    gray = np.array([[0, 257 * 77], [65535, 257 * 200]], np.uint16)
    assert saved(Image.fromarray(gray), "deep.png")[..., 0].tolist() == [[0, 77], [255, 200]]
    assert saved(Image.fromarray(np.array([[0.0, 0.5]], np.float32)), "float.tiff")[..., 1].tolist() == [[0, 128]]
    print_colors = saved(rgb.convert("CMYK"), "print.tiff")
    assert np.abs(print_colors[..., :3].astype(int) - COLORS).max() <= 2 and (print_colors[..., 3] == 255).all()
    with_alpha = Image.fromarray(np.array([[[90, 255], [90, 0]]], np.uint8), mode="LA")
    assert saved(with_alpha, "la.png")[0].tolist() == [[90, 90, 90, 255], [90, 90, 90, 0]]


def test_a_photograph_is_turned_as_its_camera_was() -> None:
    exif = Image.Exif()
    exif[274] = 6  # the camera was held on its side: turn a quarter clockwise
    turned = saved(Image.fromarray(COLORS.repeat(16, 0).repeat(16, 1)), "side.jpg", exif=exif, quality=98)
    assert turned.shape == (32, 48, 4)
    assert np.abs(turned[8, 40, :3].astype(int) - (255, 0, 0)).max() < 40, "top left went to the top right"


def test_a_large_picture_is_reduced() -> None:
    assert saved(Image.new("RGB", (5000, 1000), (10, 20, 30)), "wide.png").shape == (334, 1667, 4)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("gone.png", None, "There is no image gone.png"), ("text.png", b"hello", "text.png cannot be read as an image"),
     ("half.png", 0.5, "half.png cannot be read as an image"), ("folder", "folder", "There is no image folder")],
)  # fmt: skip
def test_broken_files_are_refused(name: str, content: bytes | float | str | None, said: str) -> None:
    if content == "folder":
        Path(name).mkdir()
    elif isinstance(content, float):
        whole = blob("whole.png", 64).read_bytes()
        Path(name).write_bytes(whole[: int(content * len(whole))])
    elif content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_picture(GivenPicture(Path(name)))


def test_depth_is_brighter_where_it_is_nearer_and_keeps_its_digits() -> None:
    blob()
    near = np.linspace(20000, 20300, 1600).reshape(40, 40).astype(np.uint16)  # 8 bits would know two values of it
    Image.fromarray(near).save("depth.png")
    depth = read_picture(GivenPicture(Path("mug.png"), depth=Path("depth.png"))).depth
    assert np.array_equal(depth, -near.astype(np.float32)), "larger is farther"
    Image.fromarray(near[::2, ::2]).save("half.png")
    half = read_picture(GivenPicture(Path("mug.png"), depth=Path("half.png"))).depth
    assert half.shape == (40, 40) and abs(half - depth).max() < 10
    Image.fromarray(near[:20]).save("cropped.png")
    with pytest.raises(InputError, match="cropped.png has 40 x 20 pixels and its image 40 x 40"):
        read_picture(GivenPicture(Path("mug.png"), depth=Path("cropped.png")))


def test_normals_are_directions_and_nothing_where_there_are_none() -> None:
    blob()
    colors = np.full((40, 40, 3), (255, 128, 128), np.uint8)
    colors[:10] = 128
    Image.fromarray(colors).save("normals.png")
    normals = read_picture(GivenPicture(Path("mug.png"), normals=Path("normals.png"))).normals
    assert np.isnan(normals[:9]).all() and np.allclose(normals[20], [1.0, 0.004, 0.004], atol=1e-3)
    Image.fromarray(colors[..., 0]).save("gray.png")
    with pytest.raises(InputError, match="gray.png is gray, .* give it with --depth"):
        read_picture(GivenPicture(Path("mug.png"), normals=Path("gray.png")))


# Options.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mug.png", GivenPicture(Path("mug.png"))),
        ("mug.png@90", GivenPicture(Path("mug.png"), 90.0)),
        ("a@b.png@-30.5,+12", GivenPicture(Path("a@b.png"), -30.5, 12.0)),
        ("shot@2x", GivenPicture(Path("shot@2x"))),
    ],
)
def test_from_where_a_picture_was_taken(text: str, expected: GivenPicture) -> None:
    assert parse_picture(text) == expected


def test_a_file_that_is_named_like_an_angle_is_a_file() -> None:
    blob("still.png").rename("still@90")
    assert parse_picture("still@90") == GivenPicture(Path("still@90"))


def test_maps_belong_to_the_image_before_them() -> None:
    given = parsed(generate, "--image", "a.png", "--normals", "n.png", "--image", "b.png@180", "--depth", "d.png").pictures
    assert given == [GivenPicture(Path("a.png"), normals=Path("n.png")), GivenPicture(Path("b.png"), 180.0, depth=Path("d.png"))]


@pytest.mark.parametrize("words", [("--depth", "d.png"), ("--image", "a.png@400"), ("--image", "a.png@10,95"), ("--image", "a.png@1.2.3")])
def test_options_that_make_no_sense_are_errors(words: tuple[str, ...], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        parsed(generate, *words)
    assert "--image" in capsys.readouterr().err


def test_pictures_stand_in_the_settings_and_words_may_be_left_out() -> None:
    arguments = parsed(generate, "--image", "a.png", "--image", "b.png@90,10", "--framing", "keep", "--keep-background")
    settings = generate._new_settings(arguments)
    wanted = (ReferenceSettings(0.0, 0.0, "keep", "keep"), ReferenceSettings(90.0, 10.0, "keep", "keep"))
    assert settings.references == wanted and settings.prompt == ""
    assert generate._new_settings(parsed(generate, "a mug", "--image", "a.png")).references == (ReferenceSettings(),)
    assert refine._new_settings(parsed(refine, "mug.obj", "--image", "a.png"), ()).prompt == ""
    assert generate._output(parsed(generate, "--image", "shots/my mug.png@20")) == Path("output/my-mug-0")
    assert refine._output(parsed(refine, "chair.obj", "--image", "mug.png")) == Path("output/chair-mug-0")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mug", *["--image", "mug.png"] * 5], "5 images were given; a job looks at up to 4"),
        (["mug", "--framing", "keep"], "none was given; name one with --image"),
        (["--image", "nothing.png"], "There is no image nothing.png"),
        ([], "or give a picture of it with --image"),
    ],
)
def test_generate_refuses(words: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        generate.run(parsed(generate, *words))
    assert list(tmp_path.iterdir()) == []


# Going on.


def begun(*references: ReferenceSettings) -> JobFile:
    """A job with the picture of `blob`."""
    settings = JobSettings("", load_recipe("generate").stages, references=references or (ReferenceSettings(),))
    sources = ReadPictures.read([GivenPicture(blob())]).sources
    return JobFile("generate", settings, pictures=sources)


def test_a_job_file_keeps_its_pictures() -> None:
    job = begun()
    again = msgspec.json.decode(msgspec.json.encode(job), type=JobFile)
    assert again == job and again.title() == "mug"
    assert again.pictures[0].path == str(Path("mug.png").resolve())
    read = ReadPictures.read_again(again.pictures)
    assert read.sources == job.pictures and read.pictures[0].pixels.shape == (40, 40, 4)


def test_pictures_that_are_gone_or_changed_are_refused() -> None:
    job = begun()
    blob(size=44)
    with pytest.raises(InputError, match="mug.png or one of its maps has changed"):
        ReadPictures.read_again(job.pictures)
    Path("mug.png").unlink()
    with pytest.raises(InputError, match="mug.png, which is not there any more"):
        ReadPictures.read_again(job.pictures)


@pytest.mark.parametrize("words", [(), ("--image", "mug.png"), ("--image", "./mug.png@0,0", "--framing", "fit")])
def test_a_resumed_job_takes_the_same_pictures(words: tuple[str, ...]) -> None:
    hold_to_stored(parsed(generate, *words, "--resume"), "generate", begun(), Path("there"))


@pytest.mark.parametrize(
    "words",
    [("--image", "other.png"), ("--image", "mug.png@90"), ("--image", "mug.png", "--depth", "d.png"), ("--framing", "keep"),
     ("--keep-background",), ("--image", "mug.png", "--image", "mug.png")],
)  # fmt: skip
def test_a_resumed_job_refuses_others(words: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="was begun with mug.png at 0,0"):
        hold_to_stored(parsed(generate, *words, "--resume"), "generate", begun(), Path("there"))


def test_a_job_without_pictures_refuses_one_when_resumed() -> None:
    job = JobFile("generate", JobSettings("a mug", load_recipe("generate").stages))
    with pytest.raises(InputError, match="was begun with no image"):
        hold_to_stored(parsed(generate, "--image", "mug.png", "--resume"), "generate", job, Path("there"))


# Beside the result.


def test_the_result_is_compared_from_where_the_picture_was_taken() -> None:
    ball = icosphere(2)
    positions = (ball.positions * [0.9, 0.5, 0.3]).astype(np.float32)
    mesh = MeshData(positions, ball.faces, np.tile(np.float32([0.8, 0.3, 0.1]), (len(positions), 1)))
    side = Picture(render_views(mesh, [90.0], 0.0, 96)[0])
    right, wrong = compare_with_references(mesh, (side, side), (ReferenceSettings(90.0), ReferenceSettings(0.0)))
    assert right.overlap > 0.97 and right.difference < 0.02
    assert wrong.overlap < 0.5
    page = references_section((right, wrong))
    assert page.count("<img") == 2 and "from 90°" in page and "overlap to 9" in page
    assert references_section(()) == ""


def test_sources_say_where_maps_are() -> None:
    blob()
    Image.fromarray(np.zeros((40, 40), np.uint8)).save("d.png")
    (source,) = ReadPictures.read([GivenPicture(Path("mug.png"), depth=Path("d.png"))]).sources
    assert source.depth == str(Path("d.png").resolve()) and source.normals is None
    without = ReadPictures.read([GivenPicture(Path("mug.png"))]).sources[0]
    assert isinstance(without, PictureSource) and without.fingerprint != source.fingerprint
