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
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from nembp.backend import stream
from nembp.errors import ArchitectureError, DataError
from nembp.experiments.protocol import Row, data_folders, digest
from nembp.experiments.rows import RowFile, check_types, read_header, read_rows, write_header
from nembp.experiments.running import Progress, in_parallel, replicate
from nembp.experiments.tuning import grown, lowest
from nembp.files import write_atomically
from nembp.runs.config import RunConfig
from nembp.runs.folder import to_json

SUMMARY, HEADER = "summary.json", "space.json"
SEEDS_FROM = 2000  # protocols tune with seeds 1000, ... and report 0, ...


# -- what is searched ------------------------------------------------------------------------------
@dataclass(frozen=True)
class Candidate:
    """Noise for a regime: a network and a way to train it."""

    name: str
    regime: str
    overrides: Mapping[str, Any]
    noise: Mapping[str, Any]

    @property
    def baseline(self) -> Candidate:
        """The regime without noise, called by its name."""
        return replace(self, name=self.regime, noise={"noise": "none"})


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
                    noise = {"noise": "nem", "noise_place": place} | {
                        name: values[int(generator.integers(len(values)))]
                        for name, values in choices.items()
                    }
                    if {**self.base, **overrides}["backward"] == "none":
                        noise["noise_target"] = "forward"
                    name = f"{regime}/{place}-{k + 1}"
                    found.append(Candidate(name, regime, overrides, noise))
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
class Trial(NamedTuple):
    """One training: a candidate by its name, or a baseline by its regime's."""

    who: str
    rate: float
    seed: int


def trained(candidates: Sequence[Candidate]) -> dict[str, Candidate]:
    """Return all that is trained, by name: baselines first."""
    return {item.name: item for item in [*(c.baseline for c in candidates), *candidates]}


class Scores:
    """Rows of a search, by who was trained and rate, then by seed."""

    def __init__(self, space: Space, rows: Iterable[Row]) -> None:
        self.space = space
        self.table: dict[tuple[str, float], dict[int, Row]] = {}
        for row in rows:
            self.table.setdefault((row["who"], row["rate"]), {})[row["seed"]] = row

    def mean(self, who: str, rate: float, seeds: int, key: str = "nll") -> float:
        """Return a mean over the first seeds, NaN unless every one is there and finished."""
        found = self.table.get((who, rate), {})
        values = [found[seed][key] for seed in range(seeds) if seed in found]
        if len(values) < seeds or None in values:
            return math.nan
        return float(sum(values)) / len(values)

    def missing(self, who: str, rate: float, seeds: int) -> list[int]:
        """Return those of the first seeds with which a rate has not been tried."""
        found = self.table.get((who, rate), {})
        return [seed for seed in range(seeds) if seed not in found]

    def rates(self, item: Candidate, seeds: int) -> list[float]:
        """Return the rates to try: a grid, extended while its best by nll lies at an end."""

        def bests(rates: Sequence[float]) -> set[float] | None:
            if any(self.missing(item.name, rate, seeds) for rate in rates):
                return None
            return {lowest(rates, lambda rate: self.mean(item.name, rate, seeds))}

        return grown(self.space.grid(item), bests, self.space.extend)

    def best(self, item: Candidate, seeds: int, key: str = "nll") -> float:
        """Return the best rate by nll, or by accuracy; the lowest where all diverged."""
        sign = 1.0 if key == "nll" else -1.0
        rates = self.rates(item, seeds)
        return lowest(rates, lambda rate: sign * self.mean(item.name, rate, seeds, key))

    def effect(self, item: Candidate, seeds: int) -> dict[str, Any]:
        """Return a candidate against its baseline, each at its own best learning rate.

        ``cut`` is 100 (1 − Σ a / Σ b) %, of the clean training nll over epochs and seeds;
        ``points`` are of accuracy, less the best that the baseline has at any rate; ``score`` is
        min(cut / space.cut, points / space.points), −∞ where the candidate diverged.
        """
        space, base = self.space, item.baseline
        rate, slow = self.best(item, seeds), self.best(base, seeds)
        sure = self.best(base, seeds, "accuracy")
        nll, accuracy = (self.mean(item.name, rate, seeds, key) for key in ("nll", "accuracy"))
        their_nll = self.mean(base.name, slow, seeds)
        their_accuracy = self.mean(base.name, sure, seeds, "accuracy")
        cut = 100.0 * (1.0 - nll / their_nll)
        points = 100.0 * (accuracy - their_accuracy)
        score = min(cut / space.cut, points / space.points)
        return {
            "candidate": item.name, "regime": dict(item.overrides), "noise": dict(item.noise),
            "cut": cut, "points": points, "score": score if math.isfinite(score) else -math.inf,
            "rate": rate, "baseline_rate": slow, "nll": nll, "baseline_nll": their_nll,
            "accuracy": accuracy, "baseline_accuracy": their_accuracy, "seeds": seeds,
        }  # fmt: skip

    def wanted(self, candidates: Sequence[Candidate], seeds: int) -> list[tuple[Trial, Candidate]]:
        """Return the trials that a rung still lacks: of its baselines, then of its candidates."""
        return [
            (Trial(name, rate, seed), item)
            for name, item in trained(candidates).items()
            for rate in self.rates(item, seeds)
            for seed in self.missing(name, rate, seeds)
        ]

    def climb(self) -> tuple[list[tuple[Any, ...]], list[tuple[Trial, Candidate]]]:
        """Return the complete rungs, and the trials that the next one lacks.

        Of each rung the candidates and seeds, all effects by score, and those that go on: the best,
        and the best of each group.
        """
        candidates = self.space.drawn()
        complete: list[tuple[Any, ...]] = []
        for rung in self.space.rungs:
            seeds = rung["seeds"]
            if trials := self.wanted(candidates, seeds):
                return complete, trials
            ranked = [self.effect(item, seeds) for item in candidates]
            ranked.sort(key=lambda effect: (-effect["score"], effect["candidate"]))
            groups = [effect["regime"][self.space.groups] for effect in ranked]
            kept = [
                effect
                for place, effect in enumerate(ranked)
                if place < rung["keep"] or groups.index(groups[place]) == place
            ]
            complete.append((candidates, seeds, ranked, kept))
            items = trained(candidates)
            candidates = [items[effect["candidate"]] for effect in kept]
        return complete, []


def best_anywhere(
    scores: Scores, candidates: Sequence[Candidate], seeds: int
) -> list[dict[str, Any]]:
    """Return, of each data set, limit and length, the least nll with and without noise."""
    table: dict[tuple[Any, ...], dict[str, Any]] = {}
    for item in trained(candidates).values():
        rate = scores.best(item, seeds)
        nll, accuracy = (scores.mean(item.name, rate, seeds, k) for k in ("nll", "accuracy"))
        if not math.isfinite(nll):
            continue
        settings = {**scores.space.base, **item.overrides}
        key = {name: settings[name] for name in ("dataset", "limit", "epochs")}
        row = table.setdefault(tuple(key.values()), key)
        kind = "none" if item.name == item.regime else "noise"
        found = {"who": item.name, "nll": nll, "accuracy": accuracy}
        row[kind] = min(row.get(kind, found), found, key=lambda one: (one["nll"], one["accuracy"]))
    return [row for _, row in sorted(table.items(), key=lambda pair: str(pair[0]))]


def summarize_search(space: Space, rows: Sequence[Row]) -> dict[str, Any]:
    """Return what a search found, rung by rung, as JSON values.

    ``by_group`` has of the first rung the best score of each group and place, and how many
    candidates had both effects above what counts.
    """
    scores = Scores(space, rows)
    complete, _ = scores.climb()
    summary: dict[str, Any] = {
        "name": space.name, "title": space.title, "hash": space.digest, "trainings": len(rows),
        "core_minutes": sum(float(row["seconds"]) for row in rows) / 60.0,
        "rungs": [
            {"seeds": seeds, "candidates": len(candidates), "kept": kept}
            for candidates, seeds, _, kept in complete
        ],
    }  # fmt: skip
    for candidates, seeds, ranked, _ in complete[:1]:
        summary["best_anywhere"] = best_anywhere(scores, candidates, seeds)
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for e in ranked:
            key = str(e["regime"][space.groups]), str(e["noise"]["noise_place"])
            groups.setdefault(key, []).append(e)
        summary["by_group"] = [
            {
                space.groups: group, "place": place, "candidates": len(found),
                "both": sum(e["cut"] >= space.cut and e["points"] >= space.points for e in found),
                "median_cut": sorted(e["cut"] for e in found)[len(found) // 2],
                "best_score": max(e["score"] for e in found),
            }
            for (group, place), found in sorted(groups.items())
        ]  # fmt: skip
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
    folder = Path(out_dir) / space.name
    file, seconds = RowFile(folder, HEADER, "search", resume), 60.0 * budget
    with file:
        rows, size = _rows(folder, space) if file.there else ([], 0)
        write_header(folder / HEADER, {"hash": space.digest, **asdict(space)})
        file.truncate(size)
        while seconds > 0 and (trials := Scores(space, rows).climb()[1]):
            total = len(rows) + len(trials)
            calls = [(t, space.config(item, t.rate, t.seed, dirs)) for t, item in trials]
            with closing(in_parallel(_trained, calls, jobs, 1)) as results:
                for row in results:
                    rows.append(file.append({"space": space.digest, **row}))
                    seconds -= row["seconds"]
                    if on_progress is not None:
                        on_progress(len(rows), total, row)
                    if seconds <= 0:
                        break
    summary = to_json(summarize_search(space, rows), indent=2) + "\n"
    write_atomically(folder / SUMMARY, summary.encode())
    return folder


def _trained(trial: Trial, config: RunConfig) -> dict[str, Any]:
    began = time.process_time()
    found = replicate(config)
    done = found["status"] == "finished"
    nll = found["curves"].get("train/clean_nll", ())
    return {
        **trial._asdict(),
        "nll": sum(nll) / len(nll) if done else None,
        "last_nll": nll[-1] if done else None,
        "accuracy": found["scores"]["forward/accuracy"] if done else None,
        "seconds": time.process_time() - began,
    }


def read_search(out_dir: str | os.PathLike[str], space: Space) -> list[dict[str, Any]]:
    """Return the rows of a search; DataError if there are none."""
    folder = Path(out_dir) / space.name
    rows = _rows(folder, space)[0] if folder.exists() else []
    if not rows:
        raise DataError(
            f"{folder}: no search lies there; run `nembp experiment search {space.name}`, or "
            "check --out"
        )
    return rows


def _rows(folder: Path, space: Space) -> tuple[list[dict[str, Any]], int]:
    """Read the rows of a space, and the bytes that they take (see `read_rows`)."""

    def trial(row: dict[str, Any]) -> Trial:
        number = (float, type(None))
        check_types(row, space=str, who=str, rate=float, seed=int, seconds=float, nll=number,
                    last_nll=number, accuracy=number)  # fmt: skip
        return Trial(row["who"], row["rate"], row["seed"])

    read_header(folder / HEADER, space.name, space.content())
    rows, _, size = read_rows(folder, "space", space.digest, trial)
    return rows, size
