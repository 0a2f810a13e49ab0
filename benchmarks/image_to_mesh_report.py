"""What became of twenty pictures, as people read it: a table, and what was given beside what was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from benchmarks.image_to_mesh import Record

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
"""What lies between these two in the document is written anew; everything else stays as it is."""

GOOD_OVERLAP = 0.9
COLUMNS = 2
"""Objects side by side in the sheet."""


def report(
    variants: Sequence[str], records: Mapping[str, Record], objects: int, folder: Path, document: Path | None
) -> str:
    """The table of all `records` (by the name of their files); with a `document`, table and pictures are written into it."""
    lines = _table(variants, records)
    if document is not None and records:
        figures = document.parent / "figures"
        figures.mkdir(parents=True, exist_ok=True)
        _sheet([folder / f"{name}.png" for name, record in records.items() if record.variant == variants[0]]).save(
            figures / "image_to_mesh.png"
        )
        shown = [record for record in records.values() if record.variant == variants[0]]
        text = [
            f"{len(shown)} of {objects} pictures. Means over objects; back views are those within 60 degrees of the side opposite to "
            "the picture's.", "", *lines, "", "![Pictures and meshes](figures/image_to_mesh.png)", "",
            "Each: the picture, the result from there, the true object's back, the result's back.", "", *_each(shown), "",
        ]  # fmt: skip
        document.write_text(_between_marks(document, "\n".join(text)), encoding="utf-8")
    return "\n".join(lines)


def _table(variants: Sequence[str], records: Mapping[str, Record]) -> list[str]:
    heads = [
        "job", "objects", "IoU at the picture: mean, median", f"at least {GOOD_OVERLAP:g}", "IoU, unseen sides", "kind right, back views",
        "kind right, whole back", "main color right", "azimuth right", "CPU seconds",
    ]  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for variant in variants:
        found = [record for record in records.values() if record.variant == variant]
        if not found:
            continue
        at_picture = [record.reference_overlap for record in found]
        fronts = [record for record in found if record.azimuth is not None]
        cells = [
            variant,
            str(len(found)),
            f"{mean(at_picture):.3f}, {median(at_picture):.3f}",
            f"{sum(value >= GOOD_OVERLAP for value in at_picture)}/{len(found)}",
            f"{mean(record.unseen_overlap for record in found):.3f}",
            f"{mean(record.kind for record in found):.0%}",
            f"{sum(record.kind_whole for record in found)}/{len(found)}",
            f"{mean(record.main for record in found):.0%}",
            f"{mean(record.azimuth for record in fronts):.0%}" if fronts else "-",
            f"{mean(record.seconds for record in found):.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    one = {record.kind_name: record for record in records.values()}.values()
    fronts = [record for record in one if record.true_azimuth is not None]
    if one:
        truth = ["the true objects", str(len(one)), "1", "", "1", f"{mean(record.true_kind for record in one):.0%}", ""]
        truth += [f"{mean(record.true_main for record in one):.0%}"]
        truth += [f"{mean(record.true_azimuth for record in fronts):.0%}" if fronts else "-", ""]
        lines.append("| " + " | ".join(truth) + " |")
    return lines


def _each(records: Sequence[Record]) -> list[str]:
    lines = ["| object | azimuth of the picture | IoU at the picture | IoU, unseen sides | back read as | kind right | main color right |"]
    lines.append("|" + "---|" * 7)
    for one in records:
        lines.append(
            f"| {one.prompt} | {one.azimuth_of_picture:.0f} | {one.reference_overlap:.3f} | {one.unseen_overlap:.3f} | {one.kind_read} | "
            f"{one.kind:.0%} | {one.main:.0%} |"
        )
    return lines


def _sheet(paths: Sequence[Path]) -> Image.Image:
    """The strips in rows of `COLUMNS`, on white."""
    strips = [np.asarray(Image.open(path)) for path in paths]
    height, width = strips[0].shape[:2]
    rows, gap = -(-len(strips) // COLUMNS), 24
    sheet = np.full((rows * height, COLUMNS * width + (COLUMNS - 1) * gap, 3), 255, np.uint8)
    for number, one in enumerate(strips):
        top, left = number // COLUMNS * height, number % COLUMNS * (width + gap)
        sheet[top : top + height, left : left + width] = one
    return Image.fromarray(sheet)


def _between_marks(document: Path, measured: str) -> str:
    """The document's text with what was measured in place of what stood between the marks; the text alone if it is new."""
    before, after = "# From one picture to a mesh\n\n", "\n"
    if document.exists():
        before, _, rest = document.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{measured}{END}{after}"
