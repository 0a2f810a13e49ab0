"""The section of `report.html` on what the job told about itself; docs/diagnostics.md says what each number means."""

from __future__ import annotations

from backend.cli.diagnosis_charts import bars, compass, rose, shares
from backend.cli.svg_charts import curve

RIGHT_WITHIN = 45.0
"""Degrees within which a view counts as read right."""


def diagnosis_section(report: dict) -> str:
    """Empty where the job told nothing."""
    told = report["diagnostics"]
    if not told:
        return ""
    steps, last = [line["step"] for line in told], told[-1]
    pulls, losses = [line["gradient_shares"] for line in told], [line["loss_shares"] for line in told]
    names = dict.fromkeys(name for share in (*pulls, *losses) for name in share)
    order = sorted(names, key=lambda name: -sum(share.get(name, 0.0) for share in pulls))
    charts = [
        shares("Share of the gradient", steps, pulls, order),
        shares("Share of the loss", steps, losses, order),
        curve("Saturated pixels", steps, [line["saturation"] for line in told], ()),
    ]
    groups = dict.fromkeys(name for line in told for name in line["update_norms"])
    charts += [curve(f"Update of {name}", steps, [line["update_norms"].get(name) for line in told], ()) for name in groups]
    round_charts = [
        rose("Views by azimuth", last["azimuths"]),
        bars("Timesteps", last["timesteps"], "no noise", "pure noise"),
        *_compasses(report),
    ]
    return (
        f"<h2>What the job tells about itself</h2><p>{_words(report)}</p>"
        f'<div class="charts">{"".join(charts)}</div><div class="charts round">{"".join(round_charts)}</div>'
    )


def _compasses(report: dict) -> list[str]:
    drawn = []
    asked = [line for line in report["diagnostics"] if line["read_azimuths"]]
    if asked:
        drawn.append(compass("Read by the prior", asked[-1]["read_azimuths"], RIGHT_WITHIN))
    judged = report["judge"].get("read_azimuths")
    if judged:
        drawn.append(compass("Read by the judge", judged, RIGHT_WITHIN))
    return drawn


def _words(report: dict) -> str:
    last = report["diagnostics"][-1]
    said = [
        f"Views and timesteps of all steps; the rest at {len(report['diagnostics'])} moments.",
        f"That views are at least as uneven as here happens by chance with p = {last['azimuth_uniformity']:.2g}.",
    ]
    if last["janus"] is not None:
        said.append(f"The prior reads {last['janus']:.0%} of the sides as another one (Janus index).")
    elif not report["judge"].get("read_azimuths"):
        said.append("Nothing could read from where a view was looked at, so there is no Janus index.")
    right = report["judge"].get("azimuth_right")
    if right is not None:
        true = report["judge"]["true_azimuth_right"]
        said.append(f"The independent judge reads {1 - right:.0%} of the views wrong, and {1 - true:.0%} of true objects'.")
    if _compasses(report):
        said.append("Arrows lead from where a view stands to where it is read; straight inward is right.")
    return " ".join(said)
