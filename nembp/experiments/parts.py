"""What a protocol is made of: arms, metrics, comparisons, tuning, and the rule of verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from nembp.errors import ArchitectureError

__all__ = ["LATER", "WORDS", "Arm", "Comparison", "Metric", "Rate", "Rule", "Tuning", "among"]

Better = Literal["lower", "higher"]
Effect = Literal["relative cut", "cut of the mean", "relative rise", "points", "difference"]
Rate = Literal["same", "tuned"]
WORDS = {"words": True}  # metadata of fields that people read and that decide nothing
# of fields that came after rows did: at its default such a field is not in the hash, nor may that
# default ever change
LATER = {"later": True}


def among(what: str, value: str, allowed: Iterable[str]) -> None:
    """Raise ArchitectureError unless a value is one of those allowed."""
    names = list(allowed)
    if value not in names:
        raise ArchitectureError(f"{what} must be one of {', '.join(names)}; got {value!r}")


@dataclass(frozen=True)
class Arm:
    """A way to train.

    Parameters
    ----------
    name : str
        Short.
    overrides : mapping
        Fields of `RunConfig` in which it differs from the protocol's base. A ``learning_rate`` is
        the one at which it is trained untuned, and the middle of its grid.
    """

    name: str
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """A quantity, and how two arms are compared by it.

    Parameters
    ----------
    name : str
        What comparisons call it.
    key : str
        The curve or score of a row: ``train/nll`` and ``train/error`` by epoch; after training
        ``forward/accuracy``, ``backward/centroid_error``, ``robustness/fgsm:0.1``, ...
    better : {"lower", "higher"}
        Effects are signed so that positive is better.
    effect : {"relative cut", "cut of the mean", "relative rise", "points", "difference"}
        Of arm a against baseline b, over the epochs e: 100 (1 − exp mean_e ln(a_e / b_e)) in %;
        100 (1 − Σ a_e / Σ b_e) in %, for what may become 0; 100 (exp mean_e ln(a_e / b_e) − 1) in
        %; ±100 mean_e (a_e − b_e) in points; ± mean_e (a_e − b_e). Those in % are averaged over
        seeds, resampled and tested as logarithms: of two arms that do equally well, ln(a / b) is
        as likely as its negative, but 1 − a / b is not, and a mean of it would be below 0.
    epochs : int, optional
        Of a curve: its first epochs.
    """

    name: str
    key: str
    better: Better
    effect: Effect
    epochs: int | None = None

    def __post_init__(self) -> None:
        among("better", self.better, get_args(Better))
        among("effect", self.effect, get_args(Effect))
        if "cut" in self.effect and self.better != "lower":
            raise ArchitectureError(
                f"metric {self.name}: a {self.effect} is of what should be low; got better="
                f"{self.better!r}; expected effect relative rise, points or difference"
            )
        if self.effect == "relative rise" and self.better != "higher":
            raise ArchitectureError(
                f"metric {self.name}: a relative rise is of what should be high; got better="
                f"{self.better!r}; expected effect relative cut, points or difference"
            )

    @property
    def unit(self) -> str:
        """Of the effect."""
        if self.effect == "points":
            return "points"
        return "" if self.effect == "difference" else "%"

    def shown(self, effect: float) -> float:
        """Return an effect in its unit, from the scale that effects are averaged on.

        >>> round(Metric("nll", "train/nll", "lower", "relative cut").shown(math.log(2)), 9)
        50.0
        """
        if "cut" in self.effect:
            return -100.0 * math.expm1(-effect)
        return 100.0 * math.expm1(effect) if self.effect == "relative rise" else effect


@dataclass(frozen=True)
class Comparison:
    """Two arms, paired by seed.

    Parameters
    ----------
    name : str
        Short.
    arm, baseline : str
        The effect is positive where ``arm`` is better.
    metric : str
        By what.
    rate : {"same", "tuned"}
        Each arm at its untuned learning rate (and strength of noise), as published claims have it,
        or at the best of its own grid.
    claim : str
        The published claim in words; "" makes it a control, which has no verdict.
    published : float, optional
        Its figure in the effect's unit.
    margin : float
        An effect below this is none, in the effect's unit.
    minus : (str, str), optional
        Another arm and baseline, whose benefit is subtracted: is the effect larger here than
        there? With the effects e of a seed it is e_here − max(e_there, 0), so that harm there is
        no benefit here; relative effects are subtracted as logarithms.
    reach : float, optional
        What the arm's own mean of the metric has to reach besides, for claims that say how good
        something is rather than that it is better than something worse.
    within : float, optional
        Makes the claim that the arm is no worse than the baseline by as much as this, in the
        effect's unit. Its verdict is the interval's alone.
    """

    name: str
    arm: str
    baseline: str
    metric: str
    rate: Rate = "same"
    claim: str = field(default="", metadata=WORDS)
    published: float | None = None
    margin: float = 1.0
    minus: tuple[str, str] | None = None
    reach: float | None = None
    within: float | None = field(default=None, metadata=LATER)

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of all arms it needs."""
        return (self.arm, self.baseline, *(self.minus or ()))


@dataclass(frozen=True)
class Tuning:
    """How each arm's learning rate, and the strength of its noise, is chosen, by itself.

    The best mean wins, of the metric that the arm is compared by; scores are taken on a validation
    split of the training samples, never on the test split. A grid whose best rate is at an end of
    it is extended there by the step of that end, until the best lies inside; then it is refined
    beside its best.

    Parameters
    ----------
    metric : str
        Stands in for metrics that are not measured while tuning, such as robustness.
    factors : tuple of float
        The grid of learning rates, as multiples of the arm's own untuned rate.
    seeds : tuple of int
        Apart from those reported.
    validation_fraction : float
        Share of the training samples held out while tuning.
    extend : int
        Rates that may be added at each end of a grid; 0 leaves it as declared.
    refine : int
        Times that the geometric means of the best rate and its two neighbours are added.
    strengths : tuple of float
        For arms with noise, multiples of the arm's own ``noise_std``, each with a grid of learning
        rates of its own; extended where the strongest is the best. At the least of them the noise
        should be next to none, so that harmful noise is tuned away.
    """

    metric: str
    factors: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    seeds: tuple[int, ...] = (1000, 1001)
    validation_fraction: float = 0.2
    extend: int = 6
    refine: int = 1
    strengths: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not 0 < self.validation_fraction < 1 or not self.factors or min(self.factors) <= 0:
            raise ArchitectureError(
                "tuning needs a validation_fraction between 0 and 1 and at least one factor, all "
                f"above 0; got {self}"
            )
        if min(self.extend, self.refine) < 0 or (self.extend and len(set(self.factors)) < 2):
            raise ArchitectureError(
                "a grid is extended and refined 0 times or more, by the step between two of its "
                f"factors; got {self}"
            )
        if not self.strengths or min(self.strengths) <= 0:
            raise ArchitectureError(f"strengths of noise must be above 0; got {self}")


@dataclass(frozen=True)
class Rule:
    """When a claim counts as reproduced; see `nembp.experiments.verdicts`.

    Parameters
    ----------
    confidence : float
        Of the interval.
    alpha : float
        Largest p of an effect that counts, Holm-corrected for the claims of its protocol.
    share : float
        Of the published figure that has to be reached.
    """

    confidence: float = 0.95
    alpha: float = 0.05
    share: float = 0.5
