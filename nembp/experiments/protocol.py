"""Declared experiments: what is trained, measured and compared, and how it will be judged.

A protocol is data. Everything that decides its numbers or its verdicts enters its content hash, and
the hash is written into every row: rows of a changed protocol are never mixed with older ones.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Literal, get_args

from nembp.errors import ArchitectureError
from nembp.runs.config import RunConfig
from nembp.runs.gan_config import GanConfig

BUILT_IN: Final = ("digits", "ring", "grid", "stacked-digits")  # data sets without files
FILES_OF: Final = {"stacked": "mnist"}  # data sets that are made from the files of another
PERTURBATIONS: Final = ("gaussian", "mask", "fgsm", "pgd")
CONFIGS: Final[dict[str, type[RunConfig | GanConfig]]] = {"train": RunConfig, "gan": GanConfig}
# fields that each replicate sets for itself, and that no arm may set
RESERVED: Final = ("seed", "data_dir", "device", "threads", "patience", "validation_fraction")
LEAST: Final = 1e-6  # values that are compared by their ratio count as at least this

Better = Literal["lower", "higher"]
Effect = Literal["relative cut", "cut of the mean", "relative rise", "points", "difference"]
Rate = Literal["same", "tuned"]
Row = Mapping[str, Any]


def digest(content: Mapping[str, Any]) -> str:
    """Return the first 16 hexadecimal digits of a SHA-256 of JSON values."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def average(values: Sequence[float]) -> float:
    """Return the mean, by a plain sum in the order given; NaN of nothing."""
    return sum(values) / len(values) if values else math.nan


def perturbation(text: str) -> tuple[str, float]:
    """Return kind and strength of a perturbation: in pixels of [0, 1], or the share of a mask."""
    kind, _, number = text.partition(":")
    with suppress(ValueError):
        if kind in PERTURBATIONS and 0 < float(number) < (1.0 if kind == "mask" else 10.0):
            return kind, float(number)
    raise ArchitectureError(
        f"a perturbation is KIND:STRENGTH with KIND one of {', '.join(PERTURBATIONS)} and "
        f"0 < STRENGTH, as in fgsm:0.1; got {text!r}"
    )


@dataclass(frozen=True)
class Arm:
    """A way to train: the fields of the configuration in which it differs from the base.

    A ``learning_rate`` among them is its untuned rate and the middle of its grid.
    """

    name: str
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """A curve or score of a row, such as ``train/nll``, and how two arms are compared by it.

    Effects of arm a against baseline b, over the epochs e, are signed so that positive is better:

    relative cut      100 (1 − exp mean_e ln(a_e / b_e)) %
    cut of the mean   100 (1 − Σ a_e / Σ b_e) %, for values that may reach 0
    relative rise     100 (exp mean_e ln(a_e / b_e) − 1) %
    points            ±100 mean_e (a_e − b_e)
    difference        ± mean_e (a_e − b_e)

    Effects in % are averaged over seeds, resampled and tested as logarithms: for two arms that do
    equally well, ln(a / b) is as likely as its negative, which 1 − a / b is not.
    """

    name: str
    key: str
    better: Better
    effect: Effect
    epochs: int | None = None  # use only the first epochs of a curve

    @property
    def unit(self) -> str:
        """Unit of the effect."""
        return {"points": "points", "difference": ""}.get(self.effect, "%")

    @property
    def sign(self) -> float:
        """1 where a rise is better, −1 where a fall is."""
        return 1.0 if self.better == "higher" else -1.0

    def shown(self, effect: float) -> float:
        """Return an effect in its unit, from the scale on which effects are averaged."""
        if "cut" in self.effect:
            return -100.0 * math.expm1(-effect)
        return 100.0 * math.expm1(effect) if self.effect == "relative rise" else effect

    def values(self, row: Row) -> list[float]:
        """Return the values by epoch, or the one score; none if the replicate diverged."""
        if row["status"] != "finished":
            return []
        found = row["curves"].get(self.key, [row["scores"].get(self.key)])
        return [math.nan if value is None else float(value) for value in found[: self.epochs]]

    def merit(self, row: Row) -> float:
        """Return the number whose differences are the effects, and by which arms are tuned.

        The mean over epochs, for relative effects of the logarithms; NaN if the replicate diverged.
        """
        values = self.values(row)
        if self.effect == "cut of the mean" and values:
            values = [sum(values)]
        if self.unit == "%":
            values = [math.log(max(value, LEAST)) for value in values]  # NaN stays
        return average(values)

    def cost(self, row: Row) -> float:
        """Return the merit, turned so that less is better."""
        return -self.sign * self.merit(row)


@dataclass(frozen=True)
class Comparison:
    """Two arms, paired by seed; the effect is positive where ``arm`` is better."""

    name: str
    arm: str
    baseline: str
    metric: str
    # each arm at its untuned settings, as in published claims, or at the best of its own grid
    rate: Rate = "same"
    claim: str = ""  # "" makes it a control, which has no verdict; not hashed
    published: float | None = None  # figure, in the effect's unit
    margin: float = 1.0  # a smaller effect counts as none
    # another arm and baseline whose benefit is subtracted: is the effect larger here than there?
    # It is e_here − max(e_there, 0) for each seed: harm there is no benefit here
    minus: tuple[str, str] | None = None
    reach: float | None = None  # what the arm's own mean must reach, for claims of being good
    # makes the claim that the arm is worse by less than this; the interval alone decides. Not
    # hashed where it is None, as older rows are
    within: float | None = None

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of all arms it needs."""
        return (self.arm, self.baseline, *(self.minus or ()))


@dataclass(frozen=True)
class Tuning:
    """How each arm chooses its learning rate and the strength of its noise.

    The best mean wins, of the metric by which the arm is compared, on a validation split of the
    training samples. A grid whose best rate lies at an end is extended there until the best lies
    inside, and then refined next to its best.
    """

    metric: str  # used in place of metrics that are not measured while tuning, as robustness
    factors: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)  # the grid, in multiples of the untuned rate
    seeds: tuple[int, ...] = (1000, 1001)  # disjoint from the reported seeds
    validation_fraction: float = 0.2  # of the training samples
    extend: int = 6  # rates that may be added at each end of a grid
    refine: int = 1  # how often the means of the best rate and its neighbours are added
    # for arms with noise, multiples of its noise_std, each with its own grid of rates; extended
    # while the strongest is the best. The least should be next to no noise: harm is tuned away
    strengths: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        least = 2 if self.extend or self.refine else 1
        sound = 0 < self.validation_fraction < 1 and min(self.extend, self.refine) >= 0
        numbers = (*self.factors, *self.strengths)
        if not (sound and len({*self.factors}) >= least and self.strengths and min(numbers) > 0):
            raise ArchitectureError(
                "tuning needs a validation_fraction between 0 and 1, factors and strengths above 0 "
                f"(two factors for a grid to be extended), extend and refine ≥ 0; got {self}"
            )


@dataclass(frozen=True)
class Rule:
    """When a claim counts as reproduced (see `nembp.experiments.statistics.verdict`)."""

    confidence: float = 0.95  # of the interval
    alpha: float = 0.05  # the largest p, Holm-corrected over the claims of the protocol
    share: float = 0.5  # of a published figure that must be reached


@dataclass(frozen=True)
class Protocol:
    """An experiment, declared before it is run.

    ArchitectureError if it names arms, metrics or options that do not exist, or reports tuning
    seeds.
    """

    name: str
    title: str  # this, the source and ``small`` are for readers, and not hashed
    source: str
    base: Mapping[str, Any]  # fields of the configuration that all arms share
    arms: tuple[Arm, ...]  # controls are arms like the others
    metrics: tuple[Metric, ...]
    comparisons: tuple[Comparison, ...]
    tuning: Tuning
    rule: Rule = field(default_factory=Rule)
    seeds: int = 10  # reported are 0 .. seeds − 1; not hashed, so that more can be added
    # each seed draws its own training samples (split_seed = seed), where limit is below the size
    # of the data set
    resample: bool = False
    perturbations: tuple[str, ...] = ()  # for `nembp.experiments.robustness`, such as "fgsm:0.1"
    small: Mapping[str, Any] = field(default_factory=dict)  # overrides of --quick
    # replicates are runs of `nembp train` (then not hashed, as older rows are), or of `nembp gan`,
    # which has no validation split: its samples are scored on other seeds
    kind: str = "train"

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise ArchitectureError(
                f"seeds must be at least 2, since effects are told from their spread; got "
                f"{self.seeds}"
            )
        both = sorted(seed for seed in self.tuning.seeds if 0 <= seed < self.seeds)
        if both or not self.tuning.seeds:
            raise ArchitectureError(
                f"{self.name}: seeds {both} are used to tune and to report; expected tuning seeds "
                f"(at least one) apart from 0 to {self.seeds - 1}"
            )
        for what in ("arms", "metrics", "comparisons"):
            names = [item.name for item in getattr(self, what)]
            if len(set(names)) < len(names) or not names:
                raise ArchitectureError(f"{self.name}: {what} need distinct names; got {names}")
        for what, name, allowed in self._named():
            if name not in allowed:
                raise ArchitectureError(
                    f"{self.name}: {what} must be one of {', '.join(allowed)}; got {name!r}"
                )
        for item in self.comparisons:
            if item.published is not None and self.rule.share * item.published <= item.margin:
                raise ArchitectureError(
                    f"{self.name}: {item.name}: a published {item.published:g} lies within the "
                    f"margin {item.margin:g}; expected it signed so that positive is as claimed"
                )
        for text in self.perturbations:
            perturbation(text)
        for arm, config in self._configs.items():
            if config.learning_rate is None:
                raise ArchitectureError(f"{self.name}: arm {arm} has no learning_rate")

    def _named(self) -> Iterable[tuple[str, str, Iterable[str]]]:
        """Yield whatever is named, each as what it is, its name, and the names there are."""
        yield "kind", self.kind, CONFIGS
        arms, metrics = ([item.name for item in items] for items in (self.arms, self.metrics))
        yield "metric", self.tuning.metric, metrics
        for item in self.comparisons:
            yield "metric", item.metric, metrics
            yield "rate", item.rate, get_args(Rate)
            for arm in item.arms:
                yield "arm", arm, arms
        for metric in self.metrics:
            yield "effect", metric.effect, get_args(Effect)
            # a cut or rise in % is the better end itself
            end = "higher" if metric.effect == "relative rise" else "lower"
            ends = (end,) if metric.unit == "%" else get_args(Better)
            yield f"better of a {metric.effect}", metric.better, ends
        options = [name for name in CONFIGS[self.kind].options() if name not in RESERVED]
        for name in (*self.base, *(name for each in self.arms for name in each.overrides)):
            yield "option", name, options

    def metric(self, name: str) -> Metric:
        """Return a metric by name."""
        return next(metric for metric in self.metrics if metric.name == name)

    def config(self, arm: str) -> RunConfig | GanConfig:
        """Return the configuration of an arm, at its untuned learning rate."""
        return self._configs[arm]

    @cached_property
    def _configs(self) -> dict[str, RunConfig | GanConfig]:
        kind = CONFIGS[self.kind]
        return {arm.name: kind(**{**self.base, **arm.overrides}) for arm in self.arms}

    def noisy(self, arm: str) -> bool:
        """Tell whether an arm is trained with noise."""
        return self.config(arm).noise not in (None, "none")

    def compared(self, rate: Rate) -> list[str]:
        """Return the names of the arms that are compared at "same" or "tuned" settings."""
        used = {name for item in self.comparisons if item.rate == rate for name in item.arms}
        return [arm.name for arm in self.arms if arm.name in used]

    def tuned_by(self, metric: str) -> str:
        """Return the metric by which arms are tuned that are compared by this one."""
        measured = not self.metric(metric).key.startswith("robustness/")
        return metric if measured else self.tuning.metric

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the data sets it reads."""
        names = [str(config.dataset) for config in self._configs.values()]
        return tuple(dict.fromkeys(FILES_OF.get(name, name) for name in names))

    @property
    def least_seeds(self) -> int:
        """Number of seeds below which no claim has p ≤ alpha: p ≥ 2¹⁻ⁿ, times the claims."""
        claims = sum(bool(item.claim) for item in self.comparisons)
        return 1 + math.ceil(math.log2(max(1, claims) / self.rule.alpha))

    def content(self) -> dict[str, Any]:
        """Return everything that decides the numbers and the verdicts, as JSON values."""
        apart = ("title", "source", "small", "seeds", *(("kind",) if self.kind == "train" else ()))
        held = {name: value for name, value in asdict(self).items() if name not in apart}
        for item in held["comparisons"]:
            del item["claim"]
            if item["within"] is None:
                del item["within"]
        return held

    @cached_property
    def digest(self) -> str:
        """Hash of the content."""
        return digest(self.content())

    def with_seeds(self, seeds: int) -> Protocol:
        """Return the protocol with another number of reported seeds."""
        return replace(self, seeds=seeds)

    def quick(self) -> Protocol:
        """Return a small version, to see that everything works: 2 seeds, 2 rates, ``small``."""
        arms = tuple(
            Arm(arm.name, {k: self.small.get(k, v) for k, v in arm.overrides.items()})
            for arm in self.arms
        )
        few: Any = {"factors": self.tuning.factors[:2], "seeds": self.tuning.seeds[:1]}
        tuning = replace(self.tuning, **few, extend=0, refine=0, strengths=(1.0,))
        return replace(self, base={**self.base, **self.small}, arms=arms, tuning=tuning, seeds=2)


def data_folders(
    name: str, datasets: Iterable[str], dirs: Mapping[str, str] | None
) -> dict[str, str]:
    """Return where data sets lie; ArchitectureError unless it is known of each that is read."""
    found = {name: os.path.abspath(path) for name, path in (dirs or {}).items()}
    for dataset in datasets:
        if dataset not in (*BUILT_IN, *found):
            raise ArchitectureError(
                f"{name} reads {dataset}; say where it lies: "
                f"--data-dir {dataset}=FOLDER (`nembp data fetch {dataset}` gets it)"
            )
    return found
