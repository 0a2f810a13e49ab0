"""What goes wrong is told in one clear sentence, and the scene is unharmed: a real service, the built extension."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.blender.blender import Blender
from tests.journeys.service import Service

SCRIPT = Path(__file__).parent / "inside" / "troubles.py"
PROMPT = "a green tree with a brown trunk"


def run(blender: Blender, function: str, *arguments: object) -> dict:
    return blender.run(SCRIPT, *arguments, function=function, extension="installed", timeout=120)


def test_no_service_is_running(blender: Blender, tmp_path: Path) -> None:
    message = run(blender, "connection_message", tmp_path / "empty", "searching")
    assert "running" in message and is_a_sentence(message)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("token", "0" * 64, "token"), ("protocol", 99, "version")],
)
def test_a_service_that_will_not_have_us(
    blender: Blender, service: Service, tmp_path: Path, field: str, value: object, words: str
) -> None:
    folder = tmp_path / "altered"
    folder.mkdir(mode=0o700)
    file = Path(shutil.copy2(service.folder / "connection.json", folder))
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    message = run(blender, "connection_message", folder, "refused")
    assert words in message and is_a_sentence(message)


def test_objects_that_cannot_be_refined(blender: Blender, service: Service) -> None:
    told = run(blender, "refusals", service.folder, PROMPT)
    words = {
        "keyed": "shape keys", "not_finite": "not finite|NaN|not numbers|infinite", "flattened": "scale",
        "emptied": "no faces", "edited": "Edit Mode", "empty prompt": "prompt|Prompt",
    }  # fmt: skip
    assert set(told) == set(words)
    for trouble, answer in told.items():
        assert re.search(words[trouble], answer["message"]) and is_a_sentence(answer["message"]), (trouble, answer)
        assert answer["same"] and answer["objects"] == 1, (trouble, answer)


def test_a_prompt_that_the_service_does_not_understand(blender: Blender, service: Service) -> None:
    told = run(blender, "refused_by_the_service", service.folder, "a purple xylophone")
    assert told["phase"] in ("refused", "failed") and "xylophone" in told["problem"]
    assert told["message"] == "" and told["same"]


def test_the_preview_is_deleted_while_the_job_runs(blender: Blender, service: Service) -> None:
    told = run(blender, "deleted_preview", service.folder, PROMPT)
    phase, problem, obstacle, has_preview, stumbled = told["told"]
    assert phase == "finished" and not has_preview and stumbled == "" and problem == ""
    assert told["same"], "what else is in the scene is as it was, and nothing came back"


def is_a_sentence(text: str) -> bool:
    return 20 < len(text) < 400 and text[0].isupper() and text.rstrip()[-1] in ".!?" and "Traceback" not in text
