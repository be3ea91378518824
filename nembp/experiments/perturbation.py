"""Names of the perturbations that robustness is measured under; nothing here needs NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nembp.errors import ArchitectureError

__all__ = ["KINDS", "Perturbation"]

KINDS: Final[dict[str, str]] = {
    "gaussian": "standard deviation of the noise added to each pixel",
    "mask": "share of the pixels set to 0",
    "fgsm": "largest change of a pixel by one step along the sign of the gradient",
    "pgd": "largest change of a pixel by projected gradient steps from a random start",
}


@dataclass(frozen=True)
class Perturbation:
    """What is done to images before they are classified.

    Parameters
    ----------
    kind : {"gaussian", "mask", "fgsm", "pgd"}
        See ``KINDS``.
    strength : float
        In pixels of [0, 1], or the share of them.

    >>> Perturbation.parse("fgsm:0.1")
    Perturbation(kind='fgsm', strength=0.1)
    >>> Perturbation.parse("fgsm")
    Traceback (most recent call last):
        ...
    nembp.errors.ArchitectureError: a perturbation is KIND:STRENGTH with KIND one of gaussian, \
mask, fgsm, pgd and 0 < STRENGTH, as in fgsm:0.1; got 'fgsm'
    """

    kind: str
    strength: float

    @classmethod
    def parse(cls, text: str) -> Perturbation:
        """Read ``kind:strength``.

        Raises
        ------
        ArchitectureError
            If it is something else.
        """
        kind, _, number = text.partition(":")
        try:
            strength = float(number)
        except ValueError:
            strength = 0.0
        if kind not in KINDS or not 0 < strength < (1.0 if kind == "mask" else 10.0):
            raise ArchitectureError(
                f"a perturbation is KIND:STRENGTH with KIND one of {', '.join(KINDS)} and "
                f"0 < STRENGTH, as in fgsm:0.1; got {text!r}"
            )
        return cls(kind, strength)
