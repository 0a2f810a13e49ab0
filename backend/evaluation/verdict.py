"""The verdict on one mesh for one description: the judge's readings, silhouettes, yaw and geometry in one record.

`evaluate_mesh` is what the evaluation protocol and the command line's report ask. It only reads; the seed chooses the
cameras, lights and backgrounds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from backend.evaluation.geometry import Geometry, measure
from backend.evaluation.silhouettes import overlap_with_kinds, yaw_picture_errors
from backend.evaluation.views import azimuth_right, look, look_at_true_objects, read_azimuths, yaw_scores
from backend.representations.mesh_data import MeshData
from backend.toybox.captions import parse
from backend.toybox.objects import KINDS, ObjectSpec
from backend.toybox.palette import COLORS

YAW_MARGIN = 0.1
"""By how much the true yaw's score must beat the others'."""


@dataclass(frozen=True)
class Verdict:
    """Probabilities are means over unseen views; `true_...` is what the judge reads on fresh true objects.

    kind_read, main_read, second_read: what the judge took it for. overlap: mean silhouette IoU with true objects of the
    kind; overlap_rank: 1 if no other kind overlaps more; overlap_margin: to the best other kind. yaw: scores by the
    judge for a front at 0, 90, 180, 270 degrees, and yaw_pictures the picture errors (smaller is better), or None for
    kinds without a front. azimuth_right: share of views whose azimuth is read within 45 degrees, and true_azimuth_right the
    same of fresh true objects; read_azimuths: true and read azimuth of each view; None for kinds without a front.
    """

    kind: float
    main: float
    second: float
    kind_read: str
    main_read: str
    second_read: str
    true_kind: float
    true_main: float
    true_second: float
    overlap: float
    overlap_rank: int
    overlap_margin: float
    overlap_next: str
    yaw: list[float] | None
    yaw_pictures: list[float] | None
    azimuth_right: float | None
    true_azimuth_right: float | None
    read_azimuths: list[list[float]] | None
    geometry: Geometry

    @property
    def yaw_right(self) -> bool | None:
        """Whether the true yaw beats the other three; None for kinds without a front.

        The judge's azimuth decides, by a margin, since it is what tells front from back in one picture; the comparison
        of pictures, which no training could have biased, must agree.
        """
        if self.yaw is None or self.yaw_pictures is None:
            return None
        by_judge = self.yaw[0] > max(self.yaw[1:]) + YAW_MARGIN
        return by_judge and self.yaw_pictures[0] < min(self.yaw_pictures[1:])

    @property
    def second_share(self) -> float:
        """The second color's probability as a share of what the judge reads on true objects."""
        return self.second / max(self.true_second, 1e-6)

    def to_json(self) -> dict[str, object]:
        """All fields and derived answers as plain values."""
        derived = {"yaw_right": self.yaw_right, "second_share": self.second_share}
        holes = {"sound": self.geometry.sound, "has_hole": self.geometry.has_hole}
        return asdict(self) | derived | holes

    def summary(self) -> list[dict[str, str]]:
        """What a person reads first: title, value and note of the main answers."""
        answers = [
            ("looks like", self.kind_read, f"{self.kind:.0%} for what was asked, unseen views"),
            ("main color", self.main_read, f"{self.main:.0%} for what was asked"),
            ("second color", self.second_read, f"{self.second:.0%} for what was asked"),
            ("silhouette IoU", f"{self.overlap:.2f}", f"with true objects; rank {self.overlap_rank} of all kinds"),
        ]
        if self.yaw_right is not None:
            answers.append(("front", "faces +z" if self.yaw_right else "unclear", "true yaw against 90, 180, 270"))
            note = f"views read right; {self.true_azimuth_right:.0%} of true objects'"
            answers.append(("azimuth", f"{self.azimuth_right:.0%}", note))
        return [{"title": title, "value": value, "note": note} for title, value, note in answers]


def evaluate_mesh(mesh: MeshData, spec: ObjectSpec, seed: int) -> Verdict:
    """Everything there is to say about `mesh` as an answer to `spec`; about two seconds on one core."""
    reading, azimuth = look(mesh, seed)
    true, true_azimuth = look_at_true_objects(spec, seed)
    kind, main, second = KINDS.index(spec.kind), COLORS.index(spec.main), COLORS.index(spec.second)
    overlaps = overlap_with_kinds(mesh, spec.size)
    own = overlaps.pop(spec.kind.name)
    rival = max(overlaps, key=overlaps.__getitem__)
    turned = yaw_scores(reading, azimuth) if spec.kind.has_front else None
    return Verdict(
        kind=reading.kind.mean(0)[kind].item(),
        main=reading.main.mean(0)[main].item(),
        second=reading.second.mean(0)[second].item(),
        kind_read=KINDS[int(reading.kind.mean(0).argmax())].name,
        main_read=COLORS[int(reading.main.mean(0).argmax())],
        second_read=COLORS[int(reading.second.mean(0).argmax())],
        true_kind=true.kind.mean(0)[kind].item(),
        true_main=true.main.mean(0)[main].item(),
        true_second=true.second.mean(0)[second].item(),
        overlap=own,
        overlap_rank=1 + sum(value > own for value in overlaps.values()),
        overlap_margin=own - overlaps[rival],
        overlap_next=rival,
        yaw=turned,
        yaw_pictures=yaw_picture_errors(mesh, spec) if spec.kind.has_front else None,
        azimuth_right=azimuth_right(reading, azimuth) if spec.kind.has_front else None,
        true_azimuth_right=azimuth_right(true, true_azimuth) if spec.kind.has_front else None,
        read_azimuths=read_azimuths(reading, azimuth) if spec.kind.has_front else None,
        geometry=measure(mesh),
    )


def verdict_on_prompt(mesh: MeshData, prompt: str, seed: int) -> Verdict:
    """The verdict for a prompt as a person typed it; a color it leaves open counts as what the judge reads.

    Raises InputError for a prompt that toybox does not understand.
    """
    asked = parse(prompt)
    reading, _ = look(mesh, seed)
    main = asked.main or COLORS[int(reading.main.mean(0).argmax())]
    second = asked.second or COLORS[int(reading.second.mean(0).argmax())]
    return evaluate_mesh(mesh, ObjectSpec(asked.kind, main, second, asked.size), seed)
