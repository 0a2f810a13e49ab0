"""From stored records to what people read: targets and what was reached, a table of prompts, a sheet of pictures."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image, ImageDraw

from backend.evaluation.evaluate import BASELINE, CONTROLS, PICTURE_SIZE, RESULT, TRUE_OBJECT, Record
from backend.toybox.objects import KINDS, kind_named

HOLLOW = ("mug", "donut")
CAPTION_HEIGHT = 14


@dataclass(frozen=True)
class Target:
    """One line of the table of targets; `reached` is None if nothing was measured."""

    what: str
    wanted: str
    measured: str
    reached: bool | None


def targets(records: list[Record]) -> list[Target]:
    """All targets with what `records` show."""
    results = [record for record in records if record.role == RESULT]
    return _main_targets(results) + _control_targets(records) + _baseline_target(records, results)


def _main_targets(results: list[Record]) -> list[Target]:
    """What is asked of the meshes themselves."""
    if not results:
        return []
    verdicts = [record.verdict for record in results]
    kinds = [verdict["kind"] for verdict in verdicts]
    first = float(np.mean([verdict["overlap_rank"] == 1 for verdict in verdicts]))
    overlap = median(verdict["overlap"] for verdict in verdicts)
    with_front = [verdict["yaw_right"] for verdict in verdicts if verdict["yaw_right"] is not None]
    holes = [record.verdict["has_hole"] for record in results if record.kind in HOLLOW]
    sound = [verdict["sound"] for verdict in verdicts]
    pieces = [r.verdict["geometry"]["components"] == kind_named(r.kind).components for r in results]
    worst = min(results, key=lambda record: record.verdict["kind"])
    low = worst.verdict["kind"]
    read = [record.kind for record in results if record.verdict["kind_read"] == record.kind]
    main, second = median(v["main"] for v in verdicts), median(v["second_share"] for v in verdicts)
    main_read = np.mean([record.verdict["main_read"] == record.main for record in results])
    missing = {kind.name for kind in KINDS} - {record.kind for record in results}
    lines = [
        Target("kinds judged", "every kind", f"{len(KINDS) - len(missing)} of {len(KINDS)}", not missing),
        Target("kind, median probability", ">= .95", f"{median(kinds):.3f}", median(kinds) >= 0.95),
        Target("kind, worst result", ">= .60", f"{low:.2f} ({worst.kind}, seed {worst.seed})", low >= 0.6),
        Target("kind read right", "", f"{len(read)} of {len(results)}", None),
        Target("main color, median probability", ">= .95", f"{main:.3f} (read right: {main_read:.0%})", main >= 0.95),
        Target("second color, median share of true objects'", ">= 90 %", f"{second:.0%}", second >= 0.9),
        Target("silhouette IoU, first of all kinds", ">= 90 %", f"{first:.0%} (median {overlap:.3f})", first >= 0.9),
    ]
    if with_front:
        share = float(np.mean(with_front))
        lines.append(Target("kinds with a front: true yaw beats the others", ">= 80 %", f"{share:.0%}", share >= 0.8))
        lines.append(_janus_target(verdicts))
    if holes:
        lines.append(Target("handle of the mug, hole of the donut", "all", f"{sum(holes)} of {len(holes)}", all(holes)))
    lines.append(Target("watertight, manifold, facing outward", "all", f"{sum(sound)} of {len(sound)}", all(sound)))
    lines.append(Target("one piece, unless the kind has more", "all", f"{sum(pieces)} of {len(pieces)}", all(pieces)))
    return lines


def _janus_target(verdicts: list[dict]) -> Target:
    """How often the azimuth of a view is read right, in units of how often it is on true objects; by the worst object too."""
    judged = [(v["azimuth_right"], v["true_azimuth_right"]) for v in verdicts if v["azimuth_right"] is not None]
    own, true = (float(np.mean(values)) for values in zip(*judged))
    low = min(mine / theirs for mine, theirs in judged)
    measured = f"{own / true:.0%} ({own:.0%} of {true:.0%}; lowest of one object {low:.0%})"
    return Target("Janus: azimuths read right (45 degrees), of true objects'", ">= 90 %", measured, own / true >= 0.9)


def _control_targets(records: list[Record]) -> list[Target]:
    lines = []
    for role in CONTROLS:
        verdicts = [record.verdict for record in records if record.role == role]
        if verdicts:
            highest = max(verdict["kind"] for verdict in verdicts)
            fails = sum(not _passes(verdict) for verdict in verdicts)
            measured = f"{fails} of {len(verdicts)} fail (highest kind probability {highest:.2f})"
            lines.append(Target(f"control, {role}", "all fail", measured, fails == len(verdicts)))
    return lines


def _passes(verdict: dict) -> bool:
    """What a control must not do: be taken for the kind, in its color, with the best silhouette."""
    return verdict["kind"] >= 0.6 and verdict["overlap_rank"] == 1 and verdict["main"] >= 0.6


def _baseline_target(records: list[Record], results: list[Record]) -> list[Target]:
    guesses = {record.kind: record.verdict for record in records if record.role == BASELINE}
    gains = [r.verdict["overlap"] - guesses[r.kind]["overlap"] for r in results if r.kind in guesses]
    if not gains:
        return []
    better = median(r.verdict["overlap"] for r in results) - median(v["overlap"] for v in guesses.values())
    measured = f"{better:+.3f} (median of paired differences {median(gains):+.3f})"
    return [Target("median IoU above the prior's own 3D guess", ">= +.05", measured, better >= 0.05)]


INTRODUCTION = """# What `generate` makes, judged

`python3 galatea.py evaluate` makes one prompt of every kind whose kind and main color no training object of the prior
had, with {seeds}, by the default recipe. A judge that took no part in the making looks at views that optimization
never used; silhouettes are compared with fresh true objects of all kinds; geometry is measured. The baseline is the
prior's own 3D guess, meshed without any distillation; the controls must fail. In the picture the upper row of each
pair is the result and the lower one the baseline, from 0, 90, 180 and 270 degrees.
"""


def markdown(records: list[Record], sheet: str) -> str:
    """The targets and one line per prompt: medians over seeds and the worst. `sheet` is the picture's path."""
    answers = {True: "yes", False: "**no**", None: ""}
    rows = [f"| {t.what} | {t.wanted} | {t.measured} | {answers[t.reached]} |" for t in targets(records)]
    count = len({record.seed for record in records if record.role == RESULT})
    introduction = INTRODUCTION.format(seeds="one seed" if count == 1 else f"{count} seeds")
    head = [introduction, "| what | target | measured | reached |", "|---|---|---|---|"]
    table = [*head, *rows, "", f"![All results]({sheet})", ""]
    ceiling = [replace(record, role=RESULT) for record in records if record.role == TRUE_OBJECT]
    if ceiling:
        table += ["True objects, as blurred as optimized ones, under the same protocol:", ""]
        table += ["| what | measured |", "|---|---|"]
        table += [*(f"| {line.what} | {line.measured} |" for line in _main_targets(ceiling)), ""]
    heads = ("prompt", "kind (worst)", "main", "second (of true)", "IoU (rank)", "baseline IoU", "yaw right", "sound")
    table += ["| " + " | ".join((*heads, "genus", "seconds")) + " |", "|" + "---|" * (len(heads) + 2)]
    return "\n".join([*table, *(_prompt_row(kind.name, records) for kind in KINDS if _of(kind.name, records))]) + "\n"


def _of(kind: str, records: list[Record], role: str = RESULT) -> list[Record]:
    return [record for record in records if record.role == role and record.kind == kind]


def _prompt_row(kind: str, records: list[Record]) -> str:
    own = _of(kind, records)
    verdicts = [record.verdict for record in own]

    def middle(key: str) -> float:
        return median(verdict[key] for verdict in verdicts)

    def count(values: list[bool | None]) -> str:
        return "" if None in values else f"{sum(values)}/{len(values)}"

    guess = _of(kind, records, BASELINE)
    genus = " ".join(str(verdict["geometry"]["genus"]) for verdict in verdicts)
    cells = [
        own[0].prompt,
        f"{middle('kind'):.2f} ({min(v['kind'] for v in verdicts):.2f})",
        f"{middle('main'):.2f}",
        f"{middle('second'):.2f} ({middle('second_share'):.0%})",
        f"{middle('overlap'):.2f} ({max(v['overlap_rank'] for v in verdicts)})",
        f"{guess[0].verdict['overlap']:.2f}" if guess else "",
        count([verdict["yaw_right"] for verdict in verdicts]),
        count([verdict["sound"] for verdict in verdicts]),
        genus,
        f"{median(record.seconds for record in own):.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def contact_sheet(records: list[Record], folder: Path, columns: int = 2) -> Image.Image:
    """Four views of every kind's first result with its prompt and kind probability; the baseline, if any, below it."""
    shown = [_of(kind.name, records)[0] for kind in KINDS if _of(kind.name, records)]
    guesses = any(record.role == BASELINE for record in records)
    width, height = 4 * PICTURE_SIZE + 8, (2 if guesses else 1) * PICTURE_SIZE + CAPTION_HEIGHT + 6
    rows = -(-len(shown) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, record in enumerate(shown):
        x, y = number % columns * width, number // columns * height
        draw.text((x + 2, y + 1), f"{record.prompt}  ({record.verdict['kind']:.2f})", fill="black")
        pair = [record, *_of(record.kind, records, BASELINE)[:1]]
        for line, one in enumerate(pair):
            name = f"{one.role}-{one.kind}-{one.seed}".replace(" ", "-")
            with Image.open(folder / f"{name}.png") as views:
                sheet.paste(views, (x, y + CAPTION_HEIGHT + line * PICTURE_SIZE))
    return sheet


def write_report(records: list[Record], folder: Path, document: Path, sheet: Path) -> None:
    """Writes the Markdown `document` and the picture `sheet` that it shows, from the records stored in `folder`."""
    sheet.parent.mkdir(parents=True, exist_ok=True)
    document.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(records, folder).quantize(256).save(sheet, optimize=True)
    link = Path(os.path.relpath(sheet, document.parent)).as_posix()
    document.write_text(markdown(records, link), encoding="utf-8")
