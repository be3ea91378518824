"""What a search found: which candidates went on from rung to rung, and what they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from nembp.experiments.search_score import Effect, Scores, best_anywhere, ranked
from nembp.experiments.search_space import Candidate, Space

__all__ = ["kept", "summarize_search"]


def kept(
    space: Space,
    rows: Sequence[Mapping[str, Any]],
    candidates: Sequence[Candidate],
    seeds: int,
    keep: int,
) -> list[Candidate]:
    """Return the candidates that go on: the best ``keep``, and the best of each group."""
    order = [item for item, _ in ranked(Scores(space, rows), candidates, seeds)]
    first: dict[Any, Candidate] = {}
    for item in order:
        first.setdefault(item.regime.overrides[space.groups], item)
    going = {item.name for item in [*order[:keep], *first.values()]}
    return [item for item in order if item.name in going]


def summarize_search(space: Space, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a search found, rung by rung, as JSON values.

    Returns
    -------
    dict
        ``name``, ``title``, ``hash``, ``trainings``, ``core_minutes``; ``rungs``: of each that is
        complete its ``seeds``, the number of ``candidates``, and those ``kept`` with their
        settings and `Effect`; ``by_group``: the best score of each group at the first rung, and
        how many of its candidates had both effects above 0; ``best_anywhere``.
    """
    candidates = space.drawn()
    rungs: list[dict[str, Any]] = []
    summary: dict[str, Any] = {
        "name": space.name,
        "title": space.title,
        "hash": space.digest,
        "trainings": len(rows),
        "core_minutes": sum(float(row["seconds"]) for row in rows) / 60.0,
        "rungs": rungs,
    }
    scores = Scores(space, rows)
    for rung in space.rungs:
        if any(not _complete(scores, item, rung.seeds) for item in candidates):
            break
        table = ranked(scores, candidates, rung.seeds)
        if not rungs:
            fields = [name for name in ("dataset", "limit", "epochs") if name in
                      {**space.base, **space.regimes}]  # fmt: skip
            summary["best_anywhere"] = best_anywhere(scores, candidates, rung.seeds, fields)
            summary["by_group"] = _by_group(space, table)
        going = {c.name for c in kept(space, rows, candidates, rung.seeds, rung.keep)}
        rungs.append(
            {
                "seeds": rung.seeds,
                "candidates": len(candidates),
                "kept": [
                    {
                        "candidate": item.name,
                        "regime": dict(item.regime.overrides),
                        "noise": dict(item.noise),
                        **asdict(effect),
                    }
                    for item, effect in table
                    if item.name in going
                ],
            }
        )
        candidates = [item for item, _ in table if item.name in going]
    return summary


def _complete(scores: Scores, item: Candidate, seeds: int) -> bool:
    start = scores.space.grid(item.regime)
    return all(
        scores.complete(who, rate, seeds)
        for who in (item.name, item.regime.name)
        for rate in scores.rates(who, start, seeds)
    )


def _by_group(space: Space, table: Sequence[tuple[Candidate, Effect]]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[Effect]] = {}
    for item, effect in table:
        key = str(item.regime.overrides[space.groups]), str(item.noise["noise_place"])
        groups.setdefault(key, []).append(effect)
    return [
        {
            space.groups: group,
            "place": place,
            "candidates": len(found),
            "both": sum(e.cut >= space.cut and e.points >= space.points for e in found),
            "median_cut": sorted(e.cut for e in found)[len(found) // 2],
            "best_score": max(e.score for e in found),
        }
        for (group, place), found in sorted(groups.items())
    ]
