"""What noise is asked for: `Noise`, whose words the command line and the configuration share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Literal, get_args

from nembp.errors import ArchitectureError
from nembp.likelihoods import Gaussian, Likelihood

__all__ = ["Clock", "Kind", "Law", "Mode", "Noise", "Rejected", "Screening", "Update"]

Kind = Literal["none", "nem", "blind", "anti", "drift"]
Clock = Literal["epoch", "iteration"]
Law = Literal["gaussian", "uniform", "curvature"]
Mode = Literal["additive", "multiplicative"]
Screening = Literal["auto", "vector", "component", "expectation"]
Rejected = Literal["zero", "reflect"]
Update = Literal["exact", "published", "zero-sum"]


@dataclass(frozen=True)
class Noise:
    """What noise one direction's target receives.

    Parameters
    ----------
    kind : {"none", "nem", "blind", "anti", "drift"}
        NEM noise or one of its controls.
    std : float
        σ₀, the standard deviation of the first draw, in units of the target.
    decay, clock : float, {"iteration", "epoch"}
        σₜ = σ₀ / tᵈ with d = ``decay`` and t counted from 1 in iterations or epochs.
    law : {"gaussian", "uniform", "curvature"}
        Distribution of the draws: of standard deviation σₜ, or on targets normal with σₜ² times the
        curvature of the likelihood as covariance (:mod:`nembp.noise_curvature`).
    mode : {"additive", "multiplicative"}
        t + n, or t (1 + n), whose effective additive noise t n passes the same test.
    screening : {"auto", "vector", "component", "expectation"}
        Keep or drop whole samples by their gain, single neurons by their summand of it, or a whole
        batch by its mean gain, which is the NEM theorem's own condition E[gain] ≥ 0.
        ``auto`` is ``component`` for the Gaussian (in hundreds of dimensions its ball accepts
        almost no whole vector) and ``vector`` for the half-spaces.
    rejected : {"reflect", "zero"}
        Try −n before a rejected draw becomes 0, or set it to 0 at once.
    update : {"exact", "published", "zero-sum"}
        Softmax targets with noise need not sum to one: the exact error a Σ(t+n) − (t+n), the
        published a − (t+n), or noise projected to sum zero. The other likelihoods have one error.
    draws : int
        Draws of each sample, screened one by one, of which the one with the largest gain is taken
        (for ``anti``, with the least): n = argmax_j gain(n_j), so that the noise leans further
        towards the target. Each of them has gain ≥ 0, hence E[gain] ≥ 0 as the theorem asks.
        ``blind`` noise is one draw whatever this is, since choosing by gain is screening.

    Raises
    ------
    ArchitectureError
        If an option is not one of those above, or ``std`` or ``decay`` is negative.

    >>> Noise("nem", std=0.2, decay=0.5).std_at(epoch=1, iteration=4)
    0.1
    """

    kind: Kind = "none"
    std: float = 0.1
    decay: float = 1.0
    clock: Clock = "iteration"
    law: Law = "gaussian"
    mode: Mode = "additive"
    screening: Screening = "auto"
    rejected: Rejected = "reflect"
    update: Update = "exact"
    draws: int = 1

    def __post_init__(self) -> None:
        choices = {
            "kind": Kind,
            "clock": Clock,
            "law": Law,
            "mode": Mode,
            "screening": Screening,
            "rejected": Rejected,
            "update": Update,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in get_args(allowed):
                options = ", ".join(get_args(allowed))
                raise ArchitectureError(
                    f"noise {name} must be one of {options}, got {getattr(self, name)!r}"
                )
        for name in ("std", "decay"):
            value: float = getattr(self, name)
            if not isinstance(value, Real) or not (0.0 <= float(value) < math.inf):
                raise ArchitectureError(f"noise {name} must be a finite number ≥ 0, got {value!r}")

        if not isinstance(self.draws, int) or self.draws < 1:
            raise ArchitectureError(f"noise draws must be a whole number ≥ 1, got {self.draws!r}")

    def std_at(self, epoch: int, iteration: int) -> float:
        """Return σₜ for the epoch and iteration, both counted from 1."""
        t = epoch if self.clock == "epoch" else iteration
        return self.std / math.pow(t, self.decay)

    def screening_for(
        self, likelihood: Likelihood
    ) -> Literal["vector", "component", "expectation"]:
        """Return how samples are screened under ``likelihood``."""
        if self.screening != "auto":
            return self.screening
        return "component" if isinstance(likelihood, Gaussian) else "vector"
