"""What an adversarial training leaves on record."""

from __future__ import annotations

from dataclasses import dataclass, field

from nembp.backend import Array, Backend

__all__ = ["AdversarialHistory", "Means"]


@dataclass
class AdversarialHistory:
    """What happened, a dict of means over the iterations since the row before.

    Attributes
    ----------
    rows : list of dict
        Keys: ``iteration``; ``discriminator/nll``, −(mean log D(x) + mean log(1 − D(G(z)))) in
        nats, or ``critic/objective``, mean f(x) − mean f(G(z)); ``generator/nll``, what G descends:
        −mean log D(G(z)), mean log(1 − D(G(z))) for minimax, −mean f(G(z)); the nll of the backward
        directions that are trained, ``discriminator/backward_nll`` and ``generator/backward_nll``,
        before their weights; ``critic/penalty``, mean (‖∇ₓ f(x̂)‖ − 1)²; with noise,
        ``noise/discriminator/forward/accepted``, ``noise/discriminator/forward/gain`` (nats a
        sample) and so on; ``iterations_per_second``.
    """

    rows: list[dict[str, float]] = field(default_factory=list)

    def __getitem__(self, key: str) -> list[float]:
        """Return one value over the rows."""
        return [row[key] for row in self.rows]


class Means:
    """Means of what steps leave on the device, where they stay until read.

    Attributes
    ----------
    steps : int
        Steps since the last :meth:`clear`, which the caller counts: a step of a device that
        replays it calls nothing here.
    """

    def __init__(self, backend: Backend, dtype: str) -> None:
        self._backend, self._dtype = backend, dtype
        self._sums: dict[str, Array] = {}
        self._signs: dict[str, float] = {}
        self.steps = 0

    def clear(self) -> None:
        """Begin again."""
        self.steps = 0
        for total in self._sums.values():
            total[...] = 0.0

    def add(self, key: str, value: Array, sign: float = 1.0) -> None:
        """Add a step's ``value``, shape (1, 1), to be multiplied by ``sign`` when it is read."""
        if key not in self._sums:
            self._sums[key] = self._backend.zeros((1, 1), self._dtype)
            self._signs[key] = sign
        total = self._sums[key]
        self._backend.into(total, self._backend.xp.add, total, value)

    def read(self) -> dict[str, float]:
        """Return the means so far (synchronises)."""
        if not self.steps:
            return {}
        return {
            key: self._signs[key] * float(self._backend.to_numpy(total)[0, 0]) / self.steps
            for key, total in self._sums.items()
        }
