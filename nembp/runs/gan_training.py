"""One adversarial training: data, players, training, scores, and a folder that holds all of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

import nembp
from nembp.adversarial.animation import Film, Frame, image_frame, scatter_frame
from nembp.checkpoints import environment
from nembp.datasets.sources import as_rows
from nembp.engine.network import Network
from nembp.errors import DivergenceError
from nembp.runs.config_file import to_toml
from nembp.runs.ending import Ending
from nembp.runs.folder import CONFIG, METRICS, SUMMARY, RunFolder
from nembp.runs.gan_config import GanConfig
from nembp.runs.gan_course import Course, Row
from nembp.runs.gan_players import (
    DISCRIMINATOR,
    GENERATOR,
    check_players,
    load_players,
    save_players,
)
from nembp.runs.gan_preparation import PreparedGan, prepare_gan
from nembp.threads import threads as limit

__all__ = ["Listener", "gan_replicate", "run_gan"]

Listener = Callable[[dict[str, Any]], Any]
PICTURE, ANIMATION = "samples.png", "training.gif"
FILES: Final = (CONFIG, METRICS, GENERATOR, DISCRIMINATOR, SUMMARY, PICTURE, ANIMATION)
SAVE_EVERY = 30.0  # seconds between saves of the players while they train
IMAGES, POINTS = 64, 1000  # that are drawn


def run_gan(
    config: GanConfig,
    out_dir: str | os.PathLike[str] | None = None,
    *,
    force: bool = False,
    start: str | os.PathLike[str] | None = None,
    on_start: Listener | None = None,
    on_row: Listener | None = None,
    on_end: Listener | None = None,
    on_note: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train as configured and leave a run folder.

    The folder holds ``config.toml`` (repeats the run), ``metrics.jsonl`` (a row a checkpoint, as it
    goes), ``generator.npz`` and ``discriminator.npz``, ``summary.json``, ``samples.png`` (what the
    generator draws, rewritten at each checkpoint) and ``training.gif`` (these pictures in a row).

    Parameters
    ----------
    config : GanConfig
        None where the data set's recipe decides.
    out_dir : path, optional
        A new or empty folder; by default runs/<timestamp>-gan-<dataset>-seed<seed>.
    force : bool
        Replace the run in ``out_dir``.
    start : path, optional
        A run folder whose players are the first ones; they must be of the same architecture.
    on_start, on_row, on_end, on_note : callable, optional
        Told the plan, each checkpoint's row (True ends the training), the summary, and what the
        user should know and is no error.

    Returns
    -------
    dict
        What ``summary.json`` holds: ``scores``, means over the last checkpoints (see
        `nembp.adversarial.scorers`), ``iterations``, of which ``captured_iterations`` were made by
        a CUDA graph, ``seconds`` of training, ``device``, ``run``, ``status`` and so on.

    Raises
    ------
    OutputError
        If the folder is in use or cannot be written; found before training.
    ArchitectureError, DataError, DeviceError
        As `prepare_gan`; the folder is then as it was.
    DivergenceError
        After the last good players were saved, with status "diverged".
    KeyboardInterrupt
        After the players of the last checkpoint were saved, with status "interrupted".
    """
    began = time.perf_counter()
    name = f"gan-{config.dataset}-seed{config.seed or 0}"
    with RunFolder.claim(out_dir, name, force=force, files=FILES) as folder:
        if start is not None:
            check_players(start)  # before a judge is trained
        with limit(config.threads):
            prepared = prepare_gan(config, on_note or (lambda text: None))
        with limit(prepared.config.threads) as threads:
            if start is not None:
                load_players(start, prepared.generator, prepared.discriminator)
            run = _Run(prepared, threads, folder, on_row, on_note, began)
            folder.begin(run.config_text)
            if on_start is not None:
                on_start(run.plan())
            return run.train(on_end)


class _Run:
    """A run in progress."""

    def __init__(
        self,
        prepared: PreparedGan,
        threads: int,
        folder: RunFolder,
        listener: Listener | None,
        on_note: Callable[[str], None] | None,
        began: float,
    ) -> None:
        self.prepared, self.folder, self.listener = prepared, folder, listener
        self.on_note = on_note
        self.config = prepared.config.replace({"threads": threads})
        self.environment = environment(prepared.generator)
        self.began, self.saved_at = began, time.perf_counter()
        self.course = Course(prepared, self._checkpoint)
        self.film = Film()
        self.good: tuple[Network, Network] | None = None  # of the last checkpoint, on the host

    @property
    def config_text(self) -> str:
        comment = (
            f"An adversarial run of nembp {nembp.__version__}; `nembp gan --config` with this file "
            "repeats\nit, bit for bit with the same build of NumPy and number of threads."
        )
        return to_toml(self.config, comment)

    def plan(self) -> Row:
        """Describe what is about to happen."""
        prepared, data = self.prepared, self.prepared.data
        players = {"generator": prepared.generator, "discriminator": prepared.discriminator}
        return self.config.as_dict() | {
            "run": str(self.folder.path),
            "training_samples": len(data.train),
            "shape": list(data.shape),
            "sizes": {name: [layer.size for layer in net.layers] for name, net in players.items()},
            "parameters": {name: net.parameter_count for name, net in players.items()},
            "device": prepared.generator.backend.describe(),
            "scored_by": prepared.scorer.describe(),
        }

    def train(self, on_end: Listener | None) -> Row:
        """Train, save and score; errors of the training are raised once that is done."""
        ending = Ending.of(self.course.run)
        summary = self._finish(ending.status)
        if summary["why_not_captured"] and self.config.cuda_graphs != "off" and self.on_note:
            self.on_note(f"iterations made call by call: {summary['why_not_captured']}")
        if on_end is not None:
            on_end(summary)
        file, done = self.folder.path / GENERATOR, f"iteration {summary['iterations']}"
        ending.reraise(file, "generator", done=done, learned=self.good is not None)
        return summary

    # -- a checkpoint ----------------------------------------------------------------------------
    def _checkpoint(self, row: Row) -> bool | None:
        self.good = self._players()
        self.folder.append(row)
        self.film.add(self._frame(row))
        self.film.write_picture(self.folder.path / PICTURE)
        if time.perf_counter() - self.saved_at > SAVE_EVERY:
            self._save(self.good)
            self.film.write_gif(self.folder.path / ANIMATION)
            self.saved_at = time.perf_counter()
        return None if self.listener is None else self.listener(row)

    def _frame(self, row: Row) -> Frame:
        data = self.prepared.data
        title = f"iteration {int(row['iteration']):,}: {self._headline(row)}"
        if data.is_image:
            return image_frame(self.course.trainer.sample(IMAGES), data.shape, title)
        points = as_rows(data.test.x)[:POINTS]
        real = data.x_scaling.apply(points, np.float64).reshape(len(points), -1)
        return scatter_frame(real, self.course.trainer.sample(POINTS), title)

    def _headline(self, row: Row) -> str:
        scorer = self.prepared.scorer
        if scorer.headline != "modes":
            return f"{scorer.headline.replace('_', ' ')} {row[scorer.headline]:.4g}"
        words = f"{row['modes']:.0f} of {scorer.describe()['most']} modes"
        return words + (f", {row['high_quality']:.0%} near one" if "high_quality" in row else "")

    def _players(self) -> tuple[Network, Network]:
        """Return copies of generator and discriminator, as they are saved."""
        return self.course.trainer.sampler.to("cpu"), self.prepared.discriminator.to("cpu")

    # -- the end ---------------------------------------------------------------------------------
    def _keep_players(self) -> None:
        """Keep the players as they are, unless they diverged unnoticed (an average may)."""
        players = self._players()
        if all(np.isfinite(part).all() for net in players for part in net.snapshot()):
            self.good = players
        elif self.good is None:
            self.good = self.prepared.generator.to("cpu"), players[1]

    def _finish(self, status: str) -> Row:
        """Save the players and the animation, and write the summary."""
        course, config, prepared = self.course, self.config, self.prepared
        learned = bool(course.rows)
        picture = animation = None
        if status != "interrupted":
            self._keep_players()
        if self.good is not None:  # of an interrupted run, the step in progress may be half done
            self._save(self.good)
        if learned:
            self.film.write_gif(self.folder.path / ANIMATION)
            picture = str((self.folder.path / PICTURE).resolve())
            animation = str((self.folder.path / ANIMATION).resolve())
        last = course.rows[-1] if learned else {}
        summary = {
            "status": status,
            "run": str(self.folder.path.resolve()),
            "scores": course.final(),
            "averaged": min(course.averaged, len(course.rows)),
            "last": last,
            "iterations": int(last.get("iteration", 0)),
            "captured_iterations": course.trainer.captured,
            "why_not_captured": course.trainer.why_not_captured,
            "seconds": course.seconds,
            "wall_seconds": time.perf_counter() - self.began,
            "device": prepared.generator.backend.describe(),
            "dataset": prepared.data.name,
            "seed": config.seed,
            "parameters": {
                "generator": prepared.generator.parameter_count,
                "discriminator": prepared.discriminator.parameter_count,
            },
            "picture": picture,
            "animation": animation,
            "scored_by": prepared.scorer.describe(),
            "config": config.as_dict(),
            "environment": self.environment,
        }
        self.folder.end(summary)
        return summary

    def _save(self, players: tuple[Network, Network]) -> None:
        data = self.prepared.data
        save_players(self.folder.path, self.config, data, players, self.environment)


def gan_replicate(config: GanConfig) -> dict[str, Any]:
    """Train as configured and return what was measured, without a file.

    The same configuration gives the same numbers on the same machine with the same threads.

    Parameters
    ----------
    config : GanConfig
        With a seed.

    Returns
    -------
    dict
        ``status``: "finished", or "diverged", which has no scores; ``curves``: of each key of the
        checkpoints' rows its values, ``iteration`` among them; ``scores``: means over the last
        checkpoints; ``seconds``, of all; ``threads``.
    """
    began = time.perf_counter()
    with limit(config.threads):
        prepared = prepare_gan(config)
    with limit(prepared.config.threads) as count:
        course = Course(prepared)
        status, scores = "finished", {}
        try:
            course.run()
        except DivergenceError:
            status = "diverged"
        else:
            scores = course.final()
    rows = course.rows
    timing = ("seconds", "iterations_per_second")
    keys = [key for key in (rows[0] if rows else ()) if key not in timing]
    return {
        "status": status,
        "curves": {key: [row[key] for row in rows] for key in keys},
        "scores": scores,
        "seconds": time.perf_counter() - began,
        "threads": count,
    }
