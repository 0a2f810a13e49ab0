"""Arguments that cannot be used are refused with one sentence before anything is made."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec
import pytest

from backend.cli import generate, refine, serve
from backend.cli.job_arguments import JobFile, hold_to_stored, read_job_file
from backend.errors import InputError
from backend.recipes import load_recipe
from protocol.settings import FeatureSettings, GridStage, JobSettings, LoadingSettings


def parsed(module, *words: str) -> argparse.Namespace:  # noqa: ANN001
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "prompt is empty"),
        (["  "], "prompt is empty"),
        (["mug", "--seed", "-1"], "seed cannot be used: .*>= 0"),
        (["mug", "--threads", "0"], "threads cannot be used: .*>= 1"),
        (["mug", "--steps", "1"], "at least 2"),
        (["mug", "--recipe", "soup"], "no recipe 'soup'"),
        (["mug", "--prior", ""], "prior cannot be used"),
        (["mug", "--prior-size", "-1"], "image size cannot be used: .*>= 0"),
        (["m" * 2000], "prompt cannot be used: .*<= 1000"),
        (["mug", "--start", "cube", "--start-mesh", "x.obj"], "one of them"),
        (["mug", "--texture", "7"], "--texture is 7; give a number of texels from 128"),
        (["--resume"], "Say which job to resume"),
        (["mug", "--resume"], "nothing to resume"),
    ],
)
def test_generate_refuses(words: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        generate.run(parsed(generate, *words))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Name the mesh"),
        (["chair.obj"], "prompt is empty"),
        (["chair.obj", "a chair", "--recipe", "generate"], "keeps the mesh's topology"),
        (["--resume"], "Say which job to resume"),
    ],
)
def test_refine_refuses(words: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        refine.run(parsed(refine, *words))
    assert list(tmp_path.iterdir()) == []


def test_how_a_prior_is_loaded_stands_in_the_settings() -> None:
    words = ("--dtype", "bfloat16", "--offload", "--slicing", "--gradient-checkpointing", "--compile", "--prior-size", "512")
    wanted = LoadingSettings("bfloat16", offload=True, slicing=True, gradient_checkpointing=True, compile=True, image_size=512)
    assert generate._new_settings(parsed(generate, "mug", *words)).loading == wanted
    assert refine._new_settings(parsed(refine, "mug.obj", "mug", *words), ()).loading == wanted
    assert serve._loading(parsed(serve, *words)) == wanted
    assert generate._new_settings(parsed(generate, "mug")).loading == LoadingSettings()


def test_networks_for_losses_stand_in_the_settings_and_a_folder_is_found_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "lpips").mkdir()
    words = ("--perceptual", "lpips", "--clip", "owner/clip")
    wanted = FeatureSettings(str(tmp_path / "lpips"), "owner/clip")
    assert generate._new_settings(parsed(generate, "mug", *words)).features == wanted
    assert refine._new_settings(parsed(refine, "mug.obj", "mug", *words), ()).features == wanted
    assert generate._new_settings(parsed(generate, "mug")).features == FeatureSettings()


def test_a_start_shape_leaves_the_grid_out() -> None:
    settings = generate._new_settings(parsed(generate, "mug", "--start", "sphere", "--steps", "9"))
    assert not any(isinstance(stage, GridStage) for stage in settings.stages)
    assert sum(stage.steps for stage in settings.stages) == 9


def test_a_texture_is_painted_after_the_topology_is_final() -> None:
    whole = load_recipe("generate").stages
    settings = generate._new_settings(parsed(generate, "mug", "--texture", "256"))
    assert settings.stages[:-1] == whole
    painting, before = settings.stages[-1], whole[-1]
    assert (painting.texture_size, painting.remesh_every) == (256, 0)
    assert painting.position_rate.value == pytest.approx(before.position_rate.end)
    refining = refine._new_settings(parsed(refine, "chair.obj", "a chair", "--texture", "256"), ())
    assert [stage.texture_size for stage in refining.stages] == [256]


def stored() -> JobFile:
    return JobFile("generate", JobSettings("a mug", load_recipe("generate").stages, seed=3, recipe="generate"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a cup"], "prompt 'a mug', not 'a cup'"),
        (["--seed", "4"], "seed 3, not 4"),
        (["--steps", "7", "--threads", "2"], "steps .*, not 7; threads 1, not 2"),
        (["--negative", "red"], "negative '', not 'red'"),
        (["--perceptual", "owner/lpips", "--clip", "owner/clip"], "perceptual '', not 'owner/lpips'; clip '', not 'owner/clip'"),
        (["--dtype", "bfloat16", "--offload"], "dtype 'auto', not 'bfloat16'; offload False, not True"),
    ],
)
def test_resumed_job_is_held_to_its_settings(words: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        hold_to_stored(parsed(generate, *words), "generate", stored(), Path("out"))


@pytest.mark.parametrize("words", [[], ["a mug"], [" a mug ", "--seed", "3", "--threads", "1", "--recipe", "generate"]])
def test_resumed_job_goes_on_with_what_was_given_before(words: list[str]) -> None:
    hold_to_stored(parsed(generate, *words), "generate", stored(), Path("out"))


def test_job_of_the_other_command_is_refused() -> None:
    with pytest.raises(InputError, match="`generate`"):
        hold_to_stored(parsed(refine), "refine", stored(), Path("out"))


@pytest.mark.parametrize("content", [b"", b"{", b'{"command": "generate"}', b'{"unknown": 1}', b"\xff\xfe"])
def test_damaged_job_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "job.json").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        read_job_file(tmp_path)


def test_job_file_survives_a_round_trip(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "job.json").write_bytes(msgspec.json.encode(stored()))
    assert read_job_file(tmp_path) == stored()
