"""What a search looks through: networks and ways to train them, and noise for each of them.

A space is data, like a protocol: all that decides its numbers is in its content hash, and what is
drawn from it follows from its seed, so that a search which was killed goes on as it would have.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nembp.backend.standard import stream
from nembp.errors import ArchitectureError
from nembp.experiments.parts import among
from nembp.runs.config import RunConfig, options

__all__ = ["Candidate", "Regime", "Rung", "Space"]

SEEDS_FROM = 2000  # apart from those that protocols tune with (1000, ...) and report (0, ...)


@dataclass(frozen=True)
class Rung:
    """One round of successive halving.

    Parameters
    ----------
    seeds : int
        Seeds that each candidate left has been trained with after it.
    keep : int
        Candidates that go on; besides the best of each group (`Space.groups`).
    """

    seeds: int
    keep: int


@dataclass(frozen=True)
class Regime:
    """A network and a way to train it, without noise: what its candidates are compared with."""

    name: str
    overrides: Mapping[str, Any]


@dataclass(frozen=True)
class Candidate:
    """Noise for a regime."""

    name: str
    regime: Regime
    noise: Mapping[str, Any]


@dataclass(frozen=True)
class Space:
    """A declared space of regimes and of noise, and how it is searched.

    Parameters
    ----------
    name, title : str
        As ``nembp experiment search`` knows it, and what is looked for.
    base : mapping
        Fields of `RunConfig` that all trainings share, with a ``validation_fraction``: while
        searching, accuracy is that of held-out training samples.
    regimes : mapping of str to tuple
        Values of the fields in which regimes differ. Each value is drawn as often as any other.
    noises : mapping of str to (mapping of str to tuple)
        By place in the network: values of the options of noise there.
    rates : mapping of str to tuple of float
        Learning rates by optimizer, or by "activation optimizer" where that is declared. Noise and
        no noise are tuned over the same grid; one whose best rate is at its end is extended.
    count : int
        Regimes drawn.
    candidates : mapping of str to int
        Candidates of each place in each regime.
    rungs : tuple of Rung
        Of successive halving.
    groups : str
        Field of the regimes whose every value keeps its best candidate to the last rung.
    cut, points : float
        What counts: a cut in % of the training nll, a gain in points of accuracy. A candidate's
        score is the lesser of its two effects, each in units of what counts.
    extend : int
        Rates that may be added at each end of a grid.
    seed : int
        Of the draws.
    """

    name: str
    title: str
    base: Mapping[str, Any]
    regimes: Mapping[str, tuple[Any, ...]]
    noises: Mapping[str, Mapping[str, tuple[Any, ...]]]
    rates: Mapping[str, tuple[float, ...]]
    count: int
    candidates: Mapping[str, int]
    rungs: tuple[Rung, ...]
    groups: str = "activation"
    cut: float = 5.0
    points: float = 0.5
    extend: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        known = list(options())
        noises = [name for choices in self.noises.values() for name in choices]
        for name in (*self.base, *self.regimes, *noises):
            among(f"{self.name}: option", name, known)
        if not self.base.get("validation_fraction"):
            raise ArchitectureError(
                f"{self.name}: base needs a validation_fraction above 0, since a search must not "
                "look at the test split"
            )
        among(f"{self.name}: groups", self.groups, list(self.regimes))
        seeds = [rung.seeds for rung in self.rungs]
        if not seeds or seeds != sorted(seeds) or min(seeds) < 1:
            raise ArchitectureError(
                f"{self.name}: expected rungs of 1 seed or more each, not falling; got {seeds}"
            )

    @property
    def digest(self) -> str:
        """Return the content hash: 16 hexadecimal digits of SHA-256 over all but the title."""
        content = {name: value for name, value in asdict(self).items() if name != "title"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def drawn(self) -> list[Candidate]:
        """Return the candidates, regime by regime; the same in every call."""
        found = []
        for regime in self._regimes():
            generator = stream(self.seed, f"search/{regime.name}")
            for place, choices in self.noises.items():
                for k in range(self.candidates[place]):
                    noise = {name: _pick(generator, values) for name, values in choices.items()}
                    if {**self.base, **regime.overrides}["backward"] == "none":
                        noise["noise_target"] = "forward"
                    name = f"{regime.name}/{place}-{k + 1}"
                    noise = {"noise": "nem", "noise_place": place, **noise}
                    found.append(Candidate(name, regime, noise))
        return found

    def _regimes(self) -> list[Regime]:
        generator = stream(self.seed, "search")
        columns = {
            name: generator.permutation(np.resize(np.arange(len(values)), self.count))
            for name, values in self.regimes.items()
        }
        return [
            Regime(
                f"r{i + 1:02d}",
                {name: self.regimes[name][int(at[i])] for name, at in columns.items()},
            )
            for i in range(self.count)
        ]

    def grid(self, regime: Regime) -> list[float]:
        """Return the learning rates that a regime starts from."""
        settings = {**self.base, **regime.overrides}
        optimizer = settings["optimizer"]
        return sorted(self.rates.get(f"{settings['activation']} {optimizer}")
                      or self.rates[optimizer])  # fmt: skip

    def config(
        self,
        regime: Regime,
        noise: Mapping[str, Any] | None,
        rate: float,
        seed: int,
        data_dirs: Mapping[str, str],
    ) -> RunConfig:
        """Return how a candidate, or with ``noise`` None its baseline, is trained."""
        settings = {**self.base, **regime.overrides, **(noise or {"noise": "none"})}
        return RunConfig(
            **settings,
            learning_rate=rate,
            seed=SEEDS_FROM + seed,
            split_seed=SEEDS_FROM + seed,
            data_dir=data_dirs.get(settings["dataset"]),
            device="cpu",
            threads=1,
        )


def _pick(generator: np.random.Generator, values: tuple[Any, ...]) -> Any:
    return values[int(generator.integers(len(values)))]
