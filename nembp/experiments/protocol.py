"""A declared experiment: what is trained, compared and measured, and how it will be judged.

A protocol is data. All that decides its numbers or its verdicts is in its content hash, which goes
into every row, so that rows of a changed protocol are never mixed with those of the old one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, get_args

from nembp.errors import ArchitectureError
from nembp.experiments.kinds import KINDS, Config, Kind
from nembp.experiments.parts import LATER, WORDS, Arm, Comparison, Metric, Rate, Rule, Tuning, among
from nembp.experiments.perturbation import Perturbation

__all__ = [
    "BUILT_IN",
    "FILES_OF",
    "Arm",
    "Comparison",
    "Metric",
    "Protocol",
    "Rate",
    "Rule",
    "Tuning",
    "check_data_dirs",
]

BUILT_IN = ("digits", "ring", "grid", "stacked-digits")  # data sets that lie in no folder
FILES_OF = {"stacked": "mnist"}  # what data sets that have no files of their own are made of


@dataclass(frozen=True)
class Protocol:
    """An experiment, declared before it is run.

    Parameters
    ----------
    name : str
        As ``nembp experiment run`` knows it.
    title, source : str
        What is claimed, and by whom.
    base : mapping
        Fields of the configuration that all arms share; complete enough that no recipe decides.
    arms, metrics, comparisons : tuple
        Controls are arms like the others; a comparison with a claim gets a verdict.
    tuning : Tuning
        Of learning rates and strengths of noise.
    rule : Rule
        Of verdicts.
    seeds : int
        Reporting seeds are 0 .. seeds − 1; not part of the hash, so that more can be added.
    resample : bool
        Each seed draws its own training samples (``split_seed`` = seed) for a ``limit`` below the
        data set's size. Not for data sets whose test split is drawn too.
    perturbations : tuple of str
        For `nembp.experiments.robustness`, such as ``"fgsm:0.1"``.
    small : mapping
        Overrides of ``--quick``: a look at whether all works, which decides nothing.
    kind : {"train", "gan"}
        What replicates are: runs of ``nembp train`` or of ``nembp gan``. Adversarial runs have no
        validation split: what is generated is scored on other seeds.

    Raises
    ------
    ArchitectureError
        If it names arms or metrics that it lacks, options that do not exist, or tuning seeds that
        are reported too.
    """

    name: str
    title: str = field(metadata=WORDS)
    source: str = field(metadata=WORDS)
    base: Mapping[str, Any]
    arms: tuple[Arm, ...]
    metrics: tuple[Metric, ...]
    comparisons: tuple[Comparison, ...]
    tuning: Tuning
    rule: Rule = field(default_factory=Rule)
    seeds: int = 10
    resample: bool = False
    perturbations: tuple[str, ...] = ()
    small: Mapping[str, Any] = field(default_factory=dict, metadata=WORDS)
    kind: str = field(default="train", metadata=LATER)

    def __post_init__(self) -> None:
        among(f"{self.name}: kind", self.kind, KINDS)
        _unique(self.name, "arm", [arm.name for arm in self.arms])
        _unique(self.name, "metric", [metric.name for metric in self.metrics])
        _unique(self.name, "comparison", [item.name for item in self.comparisons])
        self._check_seeds()
        self.metric(self.tuning.metric)
        for item in self.comparisons:
            self._check_comparison(item)
        for text in self.perturbations:
            Perturbation.parse(text)
        for arm in self.arms:
            if vars(self.config(arm.name))["learning_rate"] is None:
                raise ArchitectureError(f"{self.name}: arm {arm.name} has no learning_rate")

    def _check_seeds(self) -> None:
        if self.seeds < 2:
            raise ArchitectureError(
                f"seeds must be at least 2, since effects are told from their spread; got "
                f"{self.seeds}"
            )
        both = sorted(set(self.tuning.seeds) & set(range(self.seeds)))
        if both or not self.tuning.seeds:
            raise ArchitectureError(
                f"{self.name}: seeds {both} are used to tune and to report; expected tuning seeds "
                f"(at least one) apart from 0 to {self.seeds - 1}"
            )

    def _check_comparison(self, item: Comparison) -> None:
        self.metric(item.metric)
        names = [arm.name for arm in self.arms]
        for arm in item.arms:
            among(f"{self.name}: comparison {item.name}: arm", arm, names)
        among(f"{self.name}: comparison {item.name}: rate", item.rate, get_args(Rate))
        if item.published is not None and self.rule.share * item.published <= item.margin:
            raise ArchitectureError(
                f"{self.name}: comparison {item.name}: {self.rule.share:g} of the published "
                f"{item.published:g} would be within the margin {item.margin:g}; expected a "
                "published figure that counts, signed so that positive is as claimed"
            )

    # -- parts -----------------------------------------------------------------------------------
    def metric(self, name: str) -> Metric:
        """Return a metric by name."""
        table = {metric.name: metric for metric in self.metrics}
        among(f"{self.name}: metric", name, list(table))
        return table[name]

    @property
    def replicates(self) -> Kind:
        """What its replicates are."""
        return KINDS[self.kind]

    def config(self, arm: str) -> Config:
        """Return how an arm is trained, at its untuned learning rate."""
        if arm not in self._configs:
            self._configs[arm] = self._config(arm)
        return self._configs[arm]

    @cached_property
    def _configs(self) -> dict[str, Config]:
        return {}

    def _config(self, arm: str) -> Config:
        overrides = next(item.overrides for item in self.arms if item.name == arm)
        settings = {**self.base, **overrides}
        kind = self.replicates
        known = [name for name in kind.config.options() if name not in kind.reserved]
        for name in settings:
            among(f"{self.name}: arm {arm}: option", name, known)
        return kind.config(**settings)

    def tuned_by(self, metric: str) -> str:
        """Return the metric that arms are tuned by which are compared by this one."""
        measured = not self.metric(metric).key.startswith("robustness/")
        return metric if measured else self.tuning.metric

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the data sets it reads."""
        names = [str(vars(self.config(arm.name))["dataset"]) for arm in self.arms]
        return tuple(dict.fromkeys(FILES_OF.get(name, name) for name in names))

    @cached_property
    def digest(self) -> str:
        """Return the content hash: 16 hexadecimal digits of SHA-256 over all but words."""
        text = json.dumps(self.content(), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def least_seeds(self) -> int:
        """Return the seeds below which no claim can be told from chance.

        The sign-flip test of n pairs has p ≥ 2¹⁻ⁿ, which Holm multiplies by the number of claims.
        """
        claims = sum(bool(item.claim) for item in self.comparisons)
        return 1 + math.ceil(math.log2(max(1, claims) / self.rule.alpha))

    def content(self) -> dict[str, Any]:
        """Return what decides the numbers and the verdicts, as JSON values."""
        return {name: value for name, value in _content(self).items() if name != "seeds"}

    def with_seeds(self, seeds: int) -> Protocol:
        """Return the protocol with another number of reporting seeds."""
        return dataclasses.replace(self, seeds=seeds)

    def quick(self) -> Protocol:
        """Return a small version: 2 seeds, 2 rates, and the overrides in ``small``."""
        arms = tuple(
            Arm(arm.name, {name: self.small.get(name, value)
                           for name, value in arm.overrides.items()})
            for arm in self.arms
        )  # fmt: skip
        tuning = dataclasses.replace(
            self.tuning, factors=self.tuning.factors[:2], seeds=self.tuning.seeds[:1], extend=0,
            refine=0, strengths=(1.0,),
        )  # fmt: skip
        base = {**self.base, **self.small}
        return dataclasses.replace(self, base=base, arms=arms, tuning=tuning, seeds=2)


def _content(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {
            item.name: _content(getattr(value, item.name))
            for item in dataclasses.fields(value)
            if not item.metadata.get("words")
            and not (item.metadata.get("later") and getattr(value, item.name) == item.default)
        }
    if isinstance(value, Mapping):
        return {str(key): _content(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_content(item) for item in value]
    return value


def _unique(protocol: str, what: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        raise ArchitectureError(
            f"{protocol}: expected {what}s, each of its own name; got {', '.join(twice) or 'none'}"
            f"{' twice' if twice else ''}"
        )


def check_data_dirs(name: str, datasets: Iterable[str], dirs: Mapping[str, str]) -> None:
    """Raise an ArchitectureError unless it is said where each data set of an experiment lies."""
    missing = [dataset for dataset in datasets if dataset not in (*BUILT_IN, *dirs)]
    if missing:
        raise ArchitectureError(
            f"{name} reads {missing[0]}; say where it lies: "
            f"--data-dir {missing[0]}=FOLDER (`nembp data fetch {missing[0]}` gets it)"
        )
