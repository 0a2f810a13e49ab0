"""Whether the views of a job lie evenly around the object: counts by slices of azimuth, and how likely such counts are.

The views of one step are not drawn independently. Four of a ring lie 90 degrees apart, so that a slice that is hit once is hit
together with three others: counts of a ring scatter more than a plain chi-squared test expects. Scattered views lie in slices
of their own, so that they scatter less. The independent draw is the step. Pearson's statistic is therefore compared with
the chi-squared distribution of the same mean and variance under the covariance that the steps themselves show (Rao and Scott
1984, second-order correction, with Satterthwaite's degrees of freedom): for independent views the plain test, for rings of four
one of three slices, for stratified views one with as many degrees of freedom fewer as there are strata.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

SLICES = 12
"""Of 30 degrees each, the first from 0 to 30."""


class ViewCounts:
    """Counts of views by slices of azimuth, a step at a time."""

    def __init__(self) -> None:
        self.counts = np.zeros(SLICES)
        self._moment = np.zeros((SLICES, SLICES))  # sum over steps of (counts - expected)(...)^T

    def add(self, azimuths: Sequence[float]) -> None:
        """The azimuths, in degrees, of the views of one step."""
        step = np.zeros(SLICES)
        for azimuth in azimuths:
            step[int(azimuth % 360.0 // (360.0 / SLICES)) % SLICES] += 1.0
        self.counts += step
        away = step - len(azimuths) / SLICES
        self._moment += away[:, None] * away

    def uniformity(self) -> float:
        """p-value: how likely counts at least as uneven are if every azimuth is as likely; 1 while there are none.

        It is an approximation, good from about twenty steps on.
        """
        expected = float(self.counts.sum()) / SLICES
        if expected == 0.0:
            return 1.0
        spread = self._moment / expected
        first, second = float(spread.trace()), float((spread**2).sum())
        statistic = float(((self.counts - expected) ** 2).sum()) / expected
        return chi_squared_survival(statistic * first / second, first**2 / second) if second > 0.0 else 1.0

    def state_dict(self) -> dict[str, Any]:
        return {"counts": self.counts.tolist(), "moment": self._moment.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.counts, self._moment = np.array(state["counts"]), np.array(state["moment"])


def chi_squared_survival(statistic: float, degrees: float) -> float:
    """The chance that a chi-squared variable of `degrees` of freedom (any positive number) exceeds `statistic`."""
    half = torch.tensor([degrees, statistic], dtype=torch.float64) / 2
    return float(torch.special.gammaincc(half[0], half[1]))
