"""From one picture to a mesh with the embedded prior: how much of the side that the picture shows is kept, and is the back right?

    python -m benchmarks.image_to_mesh --output output/image_to_mesh [--share I/N] [--only VARIANT ...] [--limit N]
    python -m benchmarks.image_to_mesh --output output/image_to_mesh --report-only --document docs/image_to_mesh.md

Twenty objects of twenty kinds, none of which the prior or the judge has ever seen, in main colors that the prior's training held
out for their kind. Each is rendered once, from somewhere in front of it and under a light as in training; the job gets that
picture, the pose, and nothing else. What has a record is not made again, so a run can be killed at any time, and N processes can
work on shares of one list; a record belongs to the settings, the picture and the weights that it was made with.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from backend.cameras import Cameras
from backend.cli.evaluation_trials import own_guess
from backend.evaluation.evaluate import prompt_for
from backend.evaluation.judge import AZIMUTH_BINS, BIN_DEGREES, Reading, read, shipped_judge
from backend.evaluation.judge_data import SEED_SPACE, lit_images, on_backgrounds, true_mesh
from backend.evaluation.silhouettes import overlap
from backend.optimize.events import Finished
from backend.optimize.inputs import Picture
from backend.optimize.pictures import ShownMesh, even_light
from backend.optimize.reference_pictures import bind_prior, prepare_pictures
from backend.optimize.run import run_job
from backend.priors.prior import Conditioning, Prior
from backend.priors.toybox import TOYBOX_FOLDER, ToyboxPrior
from backend.recipes import load_recipe
from backend.rendering import Light, Rendered, sample_light
from backend.representations.mesh_data import MeshData
from backend.toybox.objects import HELD_OUT, KINDS, SIZES, ObjectSpec
from backend.toybox.palette import COLORS
from benchmarks.image_to_mesh_report import report
from protocol.settings import JobSettings, LightSettings, ReferenceSettings

OBJECTS = 20
OBJECT_SEED = 16
PICTURE_SIZE = 128
WIDEST_AZIMUTH, LOWEST, HIGHEST = 60.0, 0.0, 30.0
"""Of the reference pictures: degrees to either side of the front, and of elevation."""

BACK = 60.0
"""Unseen back views are within this many degrees of the side opposite to the reference picture's."""

BACK_VIEWS = 12
SILHOUETTE_SIZE = 64
AZIMUTH_RIGHT = 45.0
TILE = 96

PICTURE, CAPTION, GUESS, BLIND = (
    "picture", "caption instead of the picture", "the prior's guess alone", "picture losses alone",
)  # fmt: skip
VARIANTS = (PICTURE, GUESS, CAPTION, BLIND)


@dataclass(frozen=True, eq=False)
class Subject:
    """An object, from where its picture shows it (degrees), and that picture [S, S, 4] u8, straight RGBA."""

    number: int
    spec: ObjectSpec
    mesh: MeshData
    azimuth: float
    elevation: float
    pixels: np.ndarray


@dataclass(frozen=True)
class Trial:
    """One mesh to make, by one of `VARIANTS`."""

    variant: str
    subject: Subject

    @property
    def name(self) -> str:
        kind = self.subject.spec.kind.name.replace(" ", "-")
        return f"{self.variant.replace(' ', '-').replace(chr(39), '')}-{self.subject.number:02d}-{kind}"

    @property
    def settings(self) -> JobSettings:
        """The settings of its job; those of a guess are never run."""
        subject = self.subject
        where = ReferenceSettings(subject.azimuth, subject.elevation, "keep", "keep")
        prompt = {CAPTION: prompt_for(subject.spec), BLIND: "anything"}.get(self.variant, "")
        return JobSettings(prompt, load_recipe("generate").stages, references=() if self.variant == CAPTION else (where,))

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(msgspec.json.encode(self.settings, order="deterministic"))
        digest.update(self.subject.pixels.tobytes())
        digest.update(weights_mark())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Record:
    """A judged mesh. Of the back views: the judge's readings, and of the true object the same (`true_...`).

    reference_overlap: silhouette IoU where the picture was taken; unseen_overlap: mean over eight sides, those within 60 degrees
    of the picture's left out. kind, main: shares of back views in which the judge reads them right, kind_whole whether all of
    them together say so. azimuth: share of back views read within 45 degrees, None for kinds without a front.
    """

    variant: str
    kind_name: str
    prompt: str
    fingerprint: str
    seconds: float
    azimuth_of_picture: float
    reference_overlap: float
    unseen_overlap: float
    kind: float
    kind_whole: bool
    kind_read: str
    main: float
    azimuth: float | None
    true_kind: float
    true_main: float
    true_azimuth: float | None


class Blind(ToyboxPrior):
    """Toybox told nothing at all, shown nothing: what is left of a job with pictures are their losses."""

    with_references = None

    @torch.no_grad()
    def encode_prompt(self, prompt: str, negative: str) -> Conditioning:
        told = super().encode_prompt("a mug", "")
        return Conditioning(prompt, negative, {name: value[[2, 2, 2]] for name, value in told.tensors.items()})


@cache
def weights_mark() -> bytes:
    """Changes with the shipped prior."""
    digest = hashlib.sha256()
    for file in sorted(TOYBOX_FOLDER.glob("**/*.safetensors")):
        digest.update(file.read_bytes())
    return digest.digest()


def subjects() -> list[Subject]:
    """Always the same ones."""
    rng = np.random.default_rng([SEED_SPACE, OBJECT_SEED])
    made = []
    for number, index in enumerate(rng.permutation(len(KINDS))[:OBJECTS]):
        kind = KINDS[index]
        allowed = sorted(color for name, color in HELD_OUT if name == kind.name)
        main = allowed[int(rng.integers(len(allowed)))]
        others = [color for color in COLORS if color != main]
        spec = ObjectSpec(kind, main, others[int(rng.integers(len(others)))], SIZES[int(rng.choice(3, p=(0.6, 0.2, 0.2)))])
        mesh = true_mesh(spec, np.random.default_rng([SEED_SPACE, OBJECT_SEED, number]))
        azimuth, elevation = (float(round(rng.uniform(*bounds), 1)) for bounds in ((-WIDEST_AZIMUTH, WIDEST_AZIMUTH), (LOWEST, HIGHEST)))
        made.append(Subject(number, spec, mesh, azimuth, elevation, taken(mesh, azimuth, elevation, number)))
    return made


def taken(mesh: MeshData, azimuth: float, elevation: float, seed: int) -> np.ndarray:
    """The reference picture, under a light as it was drawn for training."""
    cameras = Cameras.orbit([azimuth], elevation)
    light = sample_light(LightSettings(), cameras, torch.Generator().manual_seed(seed))
    return straight(ShownMesh(mesh).render(cameras, PICTURE_SIZE, light))[0]


def straight(rendered: Rendered) -> np.ndarray:
    """[N, S, S, 4] u8, straight RGBA."""
    rgba = torch.cat([rendered.rgb / rendered.alpha.clamp_min(1e-4), rendered.alpha], -1).clamp(0, 1)
    return (rgba * 255).round().to(torch.uint8).numpy()


def make(trial: Trial, prior: ToyboxPrior) -> MeshData:
    settings, picture = trial.settings, Picture(trial.subject.pixels)
    if trial.variant == GUESS:
        bound = bind_prior(prior, settings, prepare_pictures([picture], settings.references))
        return own_guess(bound)("", 0)
    asked: Prior = Blind(prior.model, "blind") if trial.variant == BLIND else prior
    with tempfile.TemporaryDirectory() as folder:
        *_, last = run_job(settings, None, asked, Path(folder), pictures=[picture] if settings.references else [])
    assert isinstance(last, Finished)
    return last.mesh


def judged(trial: Trial, mesh: MeshData, seconds: float) -> Record:
    """Cameras, lights and backgrounds depend on the object alone."""
    subject, spec = trial.subject, trial.subject.spec
    kind, main = KINDS.index(spec.kind), COLORS.index(spec.main)
    seen, azimuths = look_at_back(mesh, subject)
    true, _ = look_at_back(subject.mesh, subject)
    unseen = unseen_cameras(subject)
    at_picture = Cameras.orbit([subject.azimuth], subject.elevation)
    return Record(
        trial.variant,
        spec.kind.name,
        prompt_for(spec),
        trial.fingerprint,
        round(seconds, 1),
        subject.azimuth,
        float(overlap(silhouettes(mesh, at_picture), silhouettes(subject.mesh, at_picture))),
        float(overlap(silhouettes(mesh, unseen), silhouettes(subject.mesh, unseen))),
        float((seen.kind.argmax(1) == kind).float().mean()),
        int(seen.kind.mean(0).argmax()) == kind,
        KINDS[int(seen.kind.mean(0).argmax())].name,
        float((seen.main.argmax(1) == main).float().mean()),
        azimuth_right(seen, azimuths) if spec.kind.has_front else None,
        float((true.kind.argmax(1) == kind).float().mean()),
        float((true.main.argmax(1) == main).float().mean()),
        azimuth_right(true, azimuths) if spec.kind.has_front else None,
    )


def look_at_back(mesh: MeshData, subject: Subject) -> tuple[Reading, Tensor]:
    """What the judge reads in the back views, and their azimuths [BACK_VIEWS]."""
    rng = np.random.default_rng([SEED_SPACE, OBJECT_SEED, 1, subject.number])
    within = (np.arange(BACK_VIEWS) + rng.random(BACK_VIEWS)) / BACK_VIEWS * 2 * BACK - BACK
    azimuth = torch.tensor((subject.azimuth + 180.0 + within) % 360.0).float()
    cameras = Cameras.orbit(azimuth, torch.tensor(rng.uniform(-10.0, 45.0, BACK_VIEWS)).float())
    pictures = on_backgrounds(lit_images(mesh, cameras, rng), torch.Generator().manual_seed(subject.number))
    return read(shipped_judge(), pictures), azimuth


def azimuth_right(reading: Reading, azimuths: Tensor) -> float:
    error = (reading.azimuth.argmax(1) % AZIMUTH_BINS * BIN_DEGREES - azimuths + 180.0) % 360.0 - 180.0
    return float((error.abs() <= AZIMUTH_RIGHT).float().mean())


def unseen_cameras(subject: Subject) -> Cameras:
    return Cameras.orbit([subject.azimuth + 75.0 + 30.0 * k for k in range(8)], torch.tensor([5.0, 25.0, -5.0, 40.0] * 2))


def silhouettes(mesh: MeshData, cameras: Cameras) -> Tensor:
    nothing = Light(torch.tensor([[0.0, 0.0, 1.0]]).expand(len(cameras), 3), torch.ones(len(cameras)))
    return ShownMesh(mesh).render(cameras, SILHOUETTE_SIZE, nothing, "albedo").alpha[..., 0]


def strip(subject: Subject, mesh: MeshData) -> np.ndarray:
    """The reference | the result from there | the true back | the result's back, on white: [TILE, 4 TILE, 3] u8."""
    cameras = Cameras.orbit([subject.azimuth, subject.azimuth + 150.0], subject.elevation)
    light = even_light(cameras)
    true, own = (straight(ShownMesh(one).render(cameras, TILE, light)) for one in (subject.mesh, mesh))
    given = np.asarray(Image.fromarray(subject.pixels).resize((TILE, TILE), Image.Resampling.BOX))
    tiles = np.concatenate([given, own[0], true[1], own[1]], axis=1).astype(np.float32)
    alpha = tiles[..., 3:] / 255.0
    return (tiles[..., :3] * alpha + 255.0 * (1 - alpha)).round().astype(np.uint8)


def stored(trial: Trial, folder: Path) -> Record | None:
    """The record of exactly this trial, if there is one."""
    path = folder / f"{trial.name}.json"
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return Record(**found) if found.get("fingerprint") == trial.fingerprint else None


def store(trial: Trial, mesh: MeshData, record: Record, folder: Path) -> None:
    """Mesh and picture first, the record last and at once: what has a record is complete."""
    np.savez_compressed(folder / f"{trial.name}.npz", positions=mesh.positions, faces=mesh.faces, colors=mesh.colors)
    Image.fromarray(strip(trial.subject, mesh)).save(folder / f"{trial.name}.png")
    part = folder / f"{trial.name}.json.part"
    part.write_text(json.dumps(asdict(record), indent=1), encoding="utf-8")
    part.replace(folder / f"{trial.name}.json")


def run(trials: list[Trial], make: Callable[[Trial], MeshData], folder: Path):
    """Makes, judges and stores what `folder` lacks; yields all records."""
    folder.mkdir(parents=True, exist_ok=True)
    for trial in trials:
        record = stored(trial, folder)
        if record is None:
            begun = time.thread_time()
            mesh = make(trial)
            record = judged(trial, mesh, time.thread_time() - begun)
            store(trial, mesh, record, folder)
        yield record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("output/image_to_mesh"), metavar="DIR", help="meshes and records")
    parser.add_argument("--share", default="1/1", metavar="I/N", help="do only the I-th of N shares of the work")
    parser.add_argument("--only", action="append", choices=VARIANTS, metavar="VARIANT", help=f"of: {'; '.join(VARIANTS)}")
    parser.add_argument("--limit", type=int, metavar="N", help="stop after N trials of this share")
    parser.add_argument("--report-only", action="store_true", help="make nothing; report what the folder holds")
    parser.add_argument("--document", type=Path, metavar="FILE", help="write table and pictures into this Markdown file")
    arguments = parser.parse_args()
    part, _, count = arguments.share.partition("/")
    torch.set_num_threads(1)
    shown = subjects()
    # Variant by variant: the jobs with a picture are what matters, and whoever stops early has those.
    chosen = [Trial(variant, subject) for variant in arguments.only or VARIANTS for subject in shown]
    if not arguments.report_only:
        prior = ToyboxPrior.load(TOYBOX_FOLDER)
        records = run(chosen[int(part) - 1 :: int(count)], lambda trial: make(trial, prior), arguments.output)
        for record in islice(records, arguments.limit):
            print(
                f"{record.variant}: {record.prompt}: IoU {record.reference_overlap:.3f} at the picture, {record.unseen_overlap:.3f} "
                f"unseen; back: kind {record.kind:.2f} ({record.kind_read}), main color {record.main:.2f}, {record.seconds:.0f} s",
                flush=True,
            )
    there = [(trial, stored(trial, arguments.output)) for variant in VARIANTS for trial in (Trial(variant, one) for one in shown)]
    found = {trial.name: record for trial, record in there if record is not None}
    print(report(VARIANTS, found, OBJECTS, arguments.output, arguments.document))


if __name__ == "__main__":
    main()
