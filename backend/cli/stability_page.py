"""The results of several seeds side by side: `stability.html` and `stability.json`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from backend.cli.agreement import Agreement, agreement, views_of
from backend.cli.output_folder import REPORT_FILE
from backend.cli.pictures import filmstrip
from backend.cli.report_page import inline
from backend.representations import load_mesh
from backend.representations.mesh_data import MeshData

SHOWN = (0, 2, 4, 6)
"""Of the views that are compared."""


def compare(top: Path, folders: Sequence[Path]) -> str:
    """Write the page on the finished jobs in `folders` into `top`; returns what a person reads first."""
    reports = [json.loads((folder / REPORT_FILE).read_text(encoding="utf-8")) for folder in folders]
    views = [views_of(_mesh(folder / "mesh.glb")) for folder in folders]
    found = agreement(views)
    kinds = [report["judge"].get("kind_read") for report in reports]
    facts = summary(found, kinds)
    whole = {
        "prompt": reports[0]["settings"]["prompt"],
        "seeds": [report["settings"]["seed"] for report in reports],
        **facts,
        "overlap": found.overlap.round(4).tolist(),
        "color": found.color.round(4).tolist(),
        "kinds": kinds,
    }
    (top / "stability.json").write_text(json.dumps(whole) + "\n", encoding="utf-8")
    (top / "stability.html").write_text(stability_page(whole, found, views, folders, reports), encoding="utf-8")
    said = f"silhouettes overlap by {facts['mean_overlap']:.2f}, colors differ by {facts['mean_color']:.3f}"
    if facts["kind_agreement"] is not None:
        said += f", the judge takes {facts['kind_agreement']:.0%} of them for one kind"
    return f"{len(folders)} seeds: {said}.\n  {top / 'stability.html'}"


def summary(found: Agreement, kinds: Sequence[str | None]) -> dict[str, float | None]:
    """Means over pairs, and the share of results that are taken for the most frequent kind; None where nobody judged."""
    judged = [kind for kind in kinds if kind]
    share = Counter(judged).most_common(1)[0][1] / len(kinds) if judged else None
    return {"mean_overlap": found.between(found.overlap), "mean_color": found.between(found.color), "kind_agreement": share}


def stability_page(
    whole: dict, found: Agreement, views: Sequence[np.ndarray], folders: Sequence[Path], reports: Sequence[dict]
) -> str:
    """The page; everything is inside it."""
    style = (Path(__file__).parent / "report_page.css").read_text(encoding="utf-8")
    prompt = escape(whole["prompt"])
    rows = "".join(
        f'<figure class="chart"><figcaption><a href="{folder.name}/report.html">seed {seed}</a><span>{_note(report)}</span></figcaption>'
        f'<div class="stage"><img alt="seed {seed} from four sides" width="100%" src="{inline(filmstrip(list(view[list(SHOWN)])))}">'
        "</div></figure>"
        for folder, seed, view, report in zip(folders, whole["seeds"], views, reports, strict=True)
    )
    said = (
        f"Silhouettes of two results overlap by {whole['mean_overlap']:.2f} (IoU, the mean of eight views), their colors differ by "
        f"{whole['mean_color']:.3f} of the full range where both are seen."
    )
    if whole["kind_agreement"] is not None:
        said += f" The judge takes {whole['kind_agreement']:.0%} of them for the same kind."
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{prompt} · seeds · Galatea</title><style>{style}</style>'
        f'</head><body><main><p class="kind">Stability over {len(folders)} seeds</p><h1>{prompt}</h1><p class="sub">{said}</p>'
        f'<h2>Side by side</h2><p>Front, right, back and left.</p><div class="charts">{rows}</div>'
        f'<div class="tables">{_table("Silhouette IoU", whole["seeds"], found.overlap)}'
        f'{_table("Difference of colors", whole["seeds"], found.color)}</div></main></body></html>\n'
    )


def _note(report: dict) -> str:
    judge = report["judge"]
    if "skipped" in judge:
        return ""
    right = judge.get("azimuth_right")
    return escape(judge["kind_read"] + ("" if right is None else f", {right:.0%} of views read right"))


def _table(title: str, seeds: Sequence[int], values: np.ndarray) -> str:
    head = "".join(f"<th>{seed}</th>" for seed in seeds)
    rows = "".join(
        f"<tr><th>seed {seed}</th>{''.join(f'<td>{value:.2f}</td>' for value in row)}</tr>"
        for seed, row in zip(seeds, values, strict=True)
    )
    return f'<div class="panel"><h3>{title}</h3><table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _mesh(path: Path) -> MeshData:
    """A result as it was written: in the space that jobs work in."""
    read = load_mesh(path)
    return MeshData(read.positions.astype(np.float32), read.faces, read.colors, read.uvs, read.uv_faces, read.material())
