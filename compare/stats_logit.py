"""Logistic regression with a weak prior, and how far a combination of its coefficients may be off.

Covers: the fit that length control, ranking and the blindness check share. Does not cover: what the columns mean.

Newton's method on the penalised likelihood. The prior, normal around 0 with standard deviation PRIOR_SD in logits (a
ridge), keeps a side that never lost finite and is soon outweighed by votes. Variance from influences H^-1 x (y - p), the
clustered sandwich of stats_cluster.py, never below the model's own H^-1, which a side that never lost would undercut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compare.stats_cluster import Spread, spread
from compare.stats_votes import Codes, Floats

PRIOR_SD = 3.0
_STEPS = 100
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """``coefficients`` (k,), ``covariance`` (k, k) of the model itself, ``residuals`` (n,) y - p, ``design`` (n, k)."""

    coefficients: Floats
    covariance: Matrix
    residuals: Floats
    design: Matrix

    def spread(self, weights: Floats, prompts: Codes, raters: Codes) -> Spread:
        """The spread of the combination ``weights`` @ coefficients."""
        influence = self.design @ (self.covariance @ weights) * self.residuals
        return spread(influence, prompts, raters, float(weights @ self.covariance @ weights))


def fit(design: Matrix, outcomes: Floats, prior_sd: float = PRIOR_SD) -> Fit:
    """The coefficients for ``outcomes`` in [0, 1] (one half is a tie). ValueError when the search does not settle."""
    ridge = np.full(design.shape[1], 0.0 if np.isinf(prior_sd) else prior_sd**-2)
    beta: Floats = np.zeros(design.shape[1])
    loss = _loss(design, outcomes, ridge, beta)
    for _ in range(_STEPS):
        p = _expit(design @ beta)
        gradient = design.T @ (outcomes - p) - ridge * beta
        hessian = (design * (p * (1 - p))[:, None]).T @ design + np.diag(ridge)
        step: Floats = np.asarray(np.linalg.solve(hessian, gradient), dtype=float)
        if np.abs(step).max(initial=0.0) < 1e-10:
            return Fit(beta, np.asarray(np.linalg.inv(hessian), dtype=float), outcomes - p, design)
        beta, loss = _downhill(design, outcomes, ridge, beta, step, loss)
    raise ValueError("the logistic regression did not settle")


def _downhill(
    design: Matrix, outcomes: Floats, ridge: Floats, beta: Floats, step: Floats, loss: float
) -> tuple[Floats, float]:
    """Newton's step, halved until the loss does not grow."""
    for _ in range(40):
        lower = _loss(design, outcomes, ridge, beta + step)
        if lower <= loss + 1e-12 * abs(loss):
            return beta + step, lower
        step = step / 2
    return beta, loss


def _loss(design: Matrix, outcomes: Floats, ridge: Floats, beta: Floats) -> float:
    logits = design @ beta
    return float(np.logaddexp(0, logits).sum() - outcomes @ logits + (ridge * beta**2).sum() / 2)


def _expit(logits: Floats) -> Floats:
    return 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
