"""Search for a regime where noise pays, by successive halving.

Every candidate, noise for a network and a way to train it, is compared with no noise *in the same
regime*, on the same seeds, each at the best learning rate of a grid that both start from and that
is extended while its best lies at an end. A rung trains what is left with more seeds and keeps the
best, so that many are tried cheaply and few well (Jamieson and Talwalkar, AISTATS 2016). What
survives is not yet a finding, since it was chosen for its luck too: it is confirmed by a protocol,
on fresh seeds, test splits and data that was not searched on.
"""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from nembp.backend import stream
from nembp.errors import ArchitectureError, DataError
from nembp.experiments.protocol import Row, data_folders, digest
from nembp.experiments.rows import Journal, Progress, check_types
from nembp.experiments.running import replicate
from nembp.experiments.tuning import Table, Trials
from nembp.files import write_atomically
from nembp.runs.config import RunConfig
from nembp.runs.folder import to_json

SEEDS_FROM = 2000  # protocols tune with seeds 1000, ... and report 0, ...


# -- what is searched ------------------------------------------------------------------------------
class Candidate(NamedTuple):
    """Noise for a regime: a network and a way to train it."""

    name: str
    regime: str
    overrides: Mapping[str, Any]
    noise: Mapping[str, Any]

    @property
    def baseline(self) -> Candidate:
        """The regime without noise, called by its name."""
        return self._replace(name=self.regime, noise={"noise": "none"})


@dataclass(frozen=True)
class Space:
    """A declared space of regimes and noise, and how it is searched.

    Everything that decides its numbers is in its hash, and what is drawn follows from its seed.
    """

    name: str
    title: str
    # fields that all trainings share, with a validation_fraction: accuracy is that of held-out
    # training samples
    base: Mapping[str, Any]
    regimes: Mapping[str, tuple[Any, ...]]  # values of fields, each drawn as often as any other
    noises: Mapping[str, Mapping[str, tuple[Any, ...]]]  # values of options, by place
    rates: Mapping[str, tuple[float, ...]]  # by optimizer, or "activation optimizer" if declared
    count: int  # regimes drawn
    candidates: Mapping[str, int]  # of each place in each regime
    # rounds of halving: all left are trained with so many "seeds", the best "keep" go on
    rungs: tuple[Mapping[str, int], ...]
    groups: str = "activation"  # field whose every value keeps its best candidate to the end
    # what counts: a cut in % of the training nll, a gain in points of accuracy. A candidate's score
    # is the lesser of its two effects, each in units of what counts
    cut: float = 5.0
    points: float = 0.5
    extend: int = 3  # rates that may be added at each end of a grid
    seed: int = 0

    def content(self) -> dict[str, Any]:
        """Return all but the title, as values for JSON."""
        return {name: value for name, value in asdict(self).items() if name != "title"}

    @property
    def digest(self) -> str:
        """Content hash."""
        return digest(self.content())

    def drawn(self) -> list[Candidate]:
        """Return the candidates, regime by regime; the same in every call."""
        generator = stream(self.seed, "search")
        columns = {
            name: generator.permutation(np.resize(np.arange(len(values)), self.count))
            for name, values in self.regimes.items()
        }
        found = []
        for i in range(self.count):
            regime = f"r{i + 1:02d}"
            overrides = {name: self.regimes[name][int(at[i])] for name, at in columns.items()}
            generator = stream(self.seed, f"search/{regime}")
            for place, choices in self.noises.items():
                for k in range(self.candidates[place]):
                    noise = {"noise": "nem", "noise_place": place}
                    for name, values in choices.items():
                        noise[name] = values[int(generator.integers(len(values)))]
                    if {**self.base, **overrides}["backward"] == "none":
                        noise["noise_target"] = "forward"
                    found.append(Candidate(f"{regime}/{place}-{k + 1}", regime, overrides, noise))
        return found

    def grid(self, item: Candidate) -> list[float]:
        """Return the learning rates that a candidate and its baseline start from."""
        settings = {**self.base, **item.overrides}
        activation, optimizer = settings["activation"], settings["optimizer"]
        return sorted(self.rates.get(f"{activation} {optimizer}") or self.rates[optimizer])

    def config(
        self, item: Candidate, rate: float, seed: int, data_dirs: Mapping[str, str]
    ) -> RunConfig:
        """Return how a candidate or a baseline is trained."""
        settings = {**self.base, **item.overrides, **item.noise, "learning_rate": rate}
        settings |= dict.fromkeys(("seed", "split_seed"), SEEDS_FROM + seed)
        data_dir = data_dirs.get(settings["dataset"])
        return RunConfig(**settings, data_dir=data_dir, device="cpu", threads=1)


_TIME: Final[dict[str, Any]] = {
    "noise_decay": (0.0, 0.5, 1.0),
    "noise_clock": ("epoch", "epoch", "iteration"),
    "noise_law": ("gaussian", "uniform"),
    "noise_rejected": ("reflect", "zero"),
    "noise_screening": ("auto", "auto", "expectation"),
    "noise_draws": (1, 1, 3),
    "noise_target": ("forward", "both"),
}
_HIDDEN: Final = _TIME | {"noise_std": (0.3, 1.0, 2.0)}
_INPUT: Final = _TIME | {"noise_std": (0.03, 0.1, 0.3)}
SPACES: Final = {
    "mnist": Space(
        name="mnist",
        title="NEM noise anywhere in dense networks of any units, 300 or 1000 images of MNIST",
        base={
            "dataset": "mnist", "augment": "none", "backward_weight": 0.01, "dtype": "float32",
            "epochs": 15, "forward": "multinomial", "scaling": "unit", "schedule": "constant",
            "validation_fraction": 0.5,  # so half of each limit is trained on
            "weight_decay": 0.0,
        },
        regimes={
            "activation": ("logistic", "tanh", "relu"),
            "layers": ("128", "256,128", "128,128,128", "64,64,64,64,64"),
            "optimizer": ("sgd", "momentum", "adam"),
            "limit": (600, 2000),
            "batch_size": (25, 100),
            "backward": ("none", "none", "gaussian"),
        },
        noises={
            "hidden": _HIDDEN,
            "last-hidden": _HIDDEN,
            "input": _INPUT,
            "target": _INPUT | {"noise_decay": (0.5, 1.0), "noise_update": ("exact", "zero-sum")},
        },
        rates={
            "sgd": (0.05, 0.15, 0.45), "logistic sgd": (0.3, 0.9, 2.7),
            "momentum": (0.01, 0.03, 0.09), "logistic momentum": (0.05, 0.15, 0.45),
            "adam": (0.001, 0.003, 0.009), "logistic adam": (0.003, 0.009, 0.027),
        },
        count=18,
        candidates={"hidden": 5, "last-hidden": 3, "input": 2, "target": 3},
        rungs=tuple({"seeds": n, "keep": k} for n, k in ((1, 30), (3, 10), (7, 4))),
    ),
}  # fmt: skip


def space(name: str) -> Space:
    """Return a space by name; ArchitectureError if there is none."""
    if name not in SPACES:
        raise ArchitectureError(f"no search is called {name!r}; there is {', '.join(SPACES)}")
    return SPACES[name]


# -- what rows say ---------------------------------------------------------------------------------
Trial = tuple[Candidate, float, int]  # of a candidate or a baseline: its rate and seed


def nll(row: Row) -> float:
    """Return the nll that a training came to, NaN if it diverged."""
    return math.nan if row["nll"] is None else float(row["nll"])


def accuracy(row: Row) -> float:
    """Return the accuracy that a training came to, NaN if it diverged."""
    return math.nan if row["accuracy"] is None else float(row["accuracy"])


class Rung(Trials):
    """Candidates and their baselines, and what the rows of the first seeds say of them."""

    def __init__(
        self, space: Space, candidates: Sequence[Candidate], seeds: int, rows: Iterable[Row]
    ) -> None:
        table: Table = defaultdict(dict)
        for row in rows:
            if row["seed"] < seeds:
                table[row["who"], row["rate"]][row["seed"]] = row
        super().__init__(table, range(seeds))
        self.space, self.candidates = space, candidates
        both = (*(item.baseline for item in candidates), *candidates)
        self.trained = {item.name: item for item in both}

    def rates(self, item: Candidate) -> list[float]:
        """Return the rates to try: a grid, extended while its best by nll lies at an end."""

        def setting(rate: float) -> list[float]:
            return [rate]

        return self.grown(item.name, self.space.grid(item), setting, [nll], self.space.extend)

    def best(self, item: Candidate, cost: Callable[[Row], float] = nll) -> dict[str, float]:
        """Return the best rate, the lowest where all diverged, and what it came to."""
        rate = self.lowest(item.name, self.rates(item), cost)
        means = {each.__name__: self.mean(item.name, rate, each) for each in (nll, accuracy)}
        return {"rate": rate, **means}

    def effect(self, item: Candidate) -> dict[str, Any]:
        """Return a candidate against its baseline, each at its own best learning rate.

        ``cut`` is 100 (1 − Σ a / Σ b) %, of the clean training nll over epochs and seeds;
        ``points`` are of accuracy, less the best that the baseline has at any rate; ``score`` is
        min(cut / space.cut, points / space.points), −∞ where the candidate diverged.
        """
        found, base = self.best(item), self.best(item.baseline)
        base["accuracy"] = self.best(item.baseline, lambda row: -accuracy(row))["accuracy"]
        cut = 100.0 * (1.0 - found["nll"] / base["nll"])
        points = 100.0 * (found["accuracy"] - base["accuracy"])
        score = min(cut / self.space.cut, points / self.space.points)
        return {
            "candidate": item.name, "regime": dict(item.overrides), "noise": dict(item.noise),
            "cut": cut, "points": points, "score": score if math.isfinite(score) else -math.inf,
            **found, **{f"baseline_{key}": value for key, value in base.items()},
            "seeds": len(self.seeds),
        }  # fmt: skip

    @cached_property
    def ranked(self) -> list[dict[str, Any]]:
        """All effects by score."""
        effects = [self.effect(item) for item in self.candidates]
        return sorted(effects, key=lambda effect: (-effect["score"], effect["candidate"]))

    def kept(self, most: int) -> list[dict[str, Any]]:
        """Return the effects of those that go on: the best, and the best of each group."""
        groups = [effect["regime"][self.space.groups] for effect in self.ranked]
        return [
            effect
            for place, effect in enumerate(self.ranked)
            if place < most or groups.index(groups[place]) == place
        ]

    def best_anywhere(self) -> list[dict[str, Any]]:
        """Return, of each data set, limit and length, the least nll with and without noise."""
        table: dict[str, dict[str, Any]] = {}
        for item in self.trained.values():
            found: dict[str, Any] = {"who": item.name, **self.best(item)}
            del found["rate"]
            if math.isfinite(found["nll"]):
                settings = {**self.space.base, **item.overrides}
                key = {name: settings[name] for name in ("dataset", "limit", "epochs")}
                row = table.setdefault(str((*key.values(),)), key)
                kind = "none" if item.name == item.regime else "noise"
                row[kind] = min(row.get(kind, found), found, key=itemgetter("nll", "accuracy"))
        return [table[key] for key in sorted(table)]

    def by_group(self) -> list[dict[str, Any]]:
        """Return how many of each group and place pay in both effects, and what the best score."""
        space, groups = self.space, defaultdict(list)
        for effect in self.ranked:
            key = str(effect["regime"][space.groups]), str(effect["noise"]["noise_place"])
            groups[key].append(effect)
        return [
            {
                space.groups: group, "place": place, "candidates": len(found),
                "both": sum(e["cut"] >= space.cut and e["points"] >= space.points for e in found),
                "median_cut": sorted(e["cut"] for e in found)[len(found) // 2],
                "best_score": max(e["score"] for e in found),
            }
            for (group, place), found in sorted(groups.items())
        ]  # fmt: skip


def climb(space: Space, rows: Sequence[Row]) -> tuple[list[Rung], list[Trial]]:
    """Return the complete rungs, and the trials that the next one lacks, baselines first."""
    candidates = space.drawn()
    complete: list[Rung] = []
    for declared in space.rungs:
        rung = Rung(space, candidates, declared["seeds"], rows)
        lacking = [
            (item, rate, seed)
            for item in rung.trained.values()
            for rate in rung.rates(item)
            for seed in rung.missing(item.name, rate)
        ]
        if lacking:
            return complete, lacking
        complete.append(rung)
        candidates = [rung.trained[each["candidate"]] for each in rung.kept(declared["keep"])]
    return complete, []


def summarize_search(space: Space, rows: Sequence[Row]) -> dict[str, Any]:
    """Return what a search found, rung by rung, as JSON values; more of the first rung."""
    rungs, _ = climb(space, rows)
    each = [(rung, declared["keep"]) for rung, declared in zip(rungs, space.rungs, strict=False)]
    summary: dict[str, Any] = {
        "name": space.name, "title": space.title, "hash": space.digest, "trainings": len(rows),
        "core_minutes": sum(float(row["seconds"]) for row in rows) / 60.0,
        "rungs": [
            {"seeds": len(r.seeds), "candidates": len(r.candidates), "kept": r.kept(most)}
            for r, most in each
        ],
    }  # fmt: skip
    for first in rungs[:1]:
        summary |= {"best_anywhere": first.best_anywhere(), "by_group": first.by_group()}
    return summary


# -- searching -------------------------------------------------------------------------------------
def run_search(
    space: Space, out_dir: str | os.PathLike[str], *, budget: float = 10.0,
    jobs: int | None = None, resume: bool = False, data_dirs: Mapping[str, str] | None = None,
    on_progress: Progress | None = None,
) -> Path:  # fmt: skip
    """Search for at most ``budget`` core-minutes more, and return the folder with the rows.

    It gets rows.jsonl, space.json and summary.json. The rest is as in `run_experiment`.
    """
    if not budget > 0:
        raise ArchitectureError(f"budget must be above 0 core-minutes, got {budget}")
    dirs = data_folders(space.name, (space.base["dataset"],), data_dirs)
    journal = Trainings(Path(out_dir) / space.name, space.content())

    def left(rows: list[dict[str, Any]]) -> tuple[list[tuple[Any, ...]], int]:
        calls = [(*trial, space.config(*trial, dirs)) for trial in climb(space, rows)[1]]
        return calls, len(rows) + len(calls)

    with journal.writing(resume):
        header = {"hash": space.digest, **asdict(space)}
        rows = journal.fill(header, left, _trained, jobs=jobs, threads=1, on_progress=on_progress,
                            seconds=60.0 * budget)  # fmt: skip
    summary = to_json(summarize_search(space, rows), indent=2) + "\n"
    write_atomically(journal.folder / "summary.json", summary.encode())
    return journal.folder


def _trained(item: Candidate, rate: float, seed: int, config: RunConfig) -> dict[str, Any]:
    began = time.process_time()
    found = replicate(config)
    done = found["status"] == "finished"
    curve = found["curves"].get("train/clean_nll", ())
    return {
        "who": item.name, "rate": rate, "seed": seed,
        "nll": sum(curve) / len(curve) if done else None,
        "last_nll": curve[-1] if done else None,
        "accuracy": found["scores"]["forward/accuracy"] if done else None,
        "seconds": time.process_time() - began,
    }  # fmt: skip


class Trainings(Journal):
    """Rows of a search."""

    kind, run = "space", "search"

    def identity(self, row: dict[str, Any]) -> object:
        number = (float, type(None))
        check_types(row, space=str, who=str, rate=float, seed=int, seconds=float, nll=number,
                    last_nll=number, accuracy=number)  # fmt: skip
        return row["who"], row["rate"], row["seed"]


def read_search(out_dir: str | os.PathLike[str], space: Space) -> list[dict[str, Any]]:
    """Return the rows of a search; DataError if there are none."""
    journal = Trainings(Path(out_dir) / space.name, space.content())
    if not (journal.folder.exists() and journal.header() and (rows := journal.rows())):
        raise DataError(
            f"{journal.folder}: no search lies there; run `nembp experiment search {space.name}`, "
            "or check --out"
        )
    return rows
