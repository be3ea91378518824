"""What the players climb, as ends of their networks.

=============== ============================================ ===========================
kind            D climbs                                     G climbs, through D
=============== ============================================ ===========================
vanilla         E log D(x) + E log(1 − D(g))                 E log D(g)
minimax         E log D(x) + E log(1 − D(g))                 −E log(1 − D(g))
vanilla, K + 1  E log p(class | x) + E log p(K + 1 | g)      E log(1 − p(K + 1 | g))
minimax, K + 1  E log p(class | x) + E log p(K + 1 | g)      −E log p(K + 1 | g)
wasserstein     E f(x) − E f(g)                              E f(g)
=============== ============================================ ===========================

with g = G(z). All but one are log-likelihoods of fixed targets, up to a sign, so the ends of
:mod:`nembp.engine.backprop` serve: :class:`Score` makes a critic's objective one of them. The fourth sums over
K labels, which are hidden: :class:`RealClassLoss`.
"""

from __future__ import annotations

from nembp.backend import Array, Backend
from nembp.engine.backprop import SampleLoss
from nembp.engine.likelihoods import Multinomial, Readout, Score

__all__ = ["RealClassLoss", "Score"]


class RealClassLoss(SampleLoss):
    """log Σ_{k ≤ K} p(k | x): any of the K real classes, of K+1.

    Its gradient is that of the posterior's expectation E log p(k | x), k ~ p(k | x, real), with the
    posterior held fixed (Fisher's identity): so the target is this posterior, found anew in every
    step, and the error a − t as ever. Works on log p, so that a sample whose p(real) underflows
    still has its gradient.

    Parameters
    ----------
    target : array, shape (rows, K + 1)
        Work space.
    """

    def __init__(
        self, backend: Backend, dtype: str, likelihood: Multinomial, target: Array
    ) -> None:
        super().__init__(backend, dtype, likelihood, target)
        rows, classes = target.shape[0], target.shape[1] - 1
        self._real = Readout.allocate(backend, rows, classes, dtype)
        self._posterior = target[:, :classes]
        target[...] = 0.0

    def error(self, out: Array) -> None:
        """Write −weight · ∂log p(real)/∂z / samples into ``out``, and the mean nll into ``nll``."""
        o, real = self.readout, self._real
        self.likelihood.activate(o)  # z is log p now
        real.z[...] = o.z[:, : real.z.shape[1]]
        self.likelihood.activate(real)
        # log p(k, real) − log p(k | real), the same for every k
        log_p = self.backend.xp.subtract(o.z[:, :1], real.z[:, :1], out=real.column)
        log_p *= self.likelihood.scale
        self.set_nll(log_p)
        self._posterior[...] = real.a
        self.write_error(self.target, out)
