"""One training run: data, network, training, scores, and a folder that holds all of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import nembp
from nembp.checkpoints import Model, environment, save_model
from nembp.engine.metrics import evaluate
from nembp.engine.network import Network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import get_optimizer
from nembp.engine.training import Callback, Trainer
from nembp.runs.config import RunConfig
from nembp.runs.config_file import to_toml
from nembp.runs.ending import Ending
from nembp.runs.folder import MODEL, PICTURE, RunFolder
from nembp.runs.predicting import named_features
from nembp.runs.preparation import Prepared, pixel_units, prepare
from nembp.threads import threads as limit

__all__ = ["train_run", "trainer_of"]

Row = dict[str, Any]
Listener = Callable[[dict[str, Any]], Any]
SAVE_EVERY = 30.0  # seconds between saves of the model while it trains


def train_run(
    config: RunConfig,
    out_dir: str | os.PathLike[str] | None = None,
    *,
    force: bool = False,
    on_start: Listener | None = None,
    on_epoch: Listener | None = None,
    on_end: Listener | None = None,
    on_note: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train as configured and leave a run folder.

    The folder holds ``config.toml`` (repeats the run), ``metrics.jsonl`` (a row an epoch, as it
    goes), ``model.npz``, ``summary.json`` and, for classes, ``backward.png``.

    Parameters
    ----------
    config : RunConfig
        None where the data set's recipe decides.
    out_dir : path, optional
        A new or empty folder; by default runs/<timestamp>-<dataset>-seed<seed>.
    force : bool
        Replace the run in ``out_dir``.
    on_start, on_epoch, on_end, on_note : callable, optional
        Told the plan, each epoch's row (True ends the training), the summary, and what the user
        should know and is no error.

    Returns
    -------
    dict
        What ``summary.json`` holds: the scores on the test split (see `nembp.engine.metrics.evaluate`),
        ``epochs``, ``seconds`` of training, ``device``, ``run``, ``status`` and so on. A score
        that is not defined is NaN here and null there.

    Raises
    ------
    OutputError
        If the folder is in use or cannot be written; found before training.
    ArchitectureError, DataError, DeviceError
        As `prepare`; the folder is then as it was.
    DivergenceError
        After the last good model was saved, with status "diverged".
    KeyboardInterrupt
        After the model of the last complete epoch was saved, with status "interrupted".
    """
    started = time.perf_counter()
    name = f"{config.dataset}-seed{config.seed or 0}"
    with RunFolder.claim(out_dir, name, force=force) as folder, limit(config.threads) as threads:
        prepared = prepare(config, on_note or (lambda text: None))
        run = _Run(prepared, threads, folder, on_epoch, started)
        folder.begin(run.config_text)
        if on_start is not None:
            on_start(run.plan())
        return run.train(on_end)


class _Run:
    """A run in progress."""

    def __init__(
        self,
        prepared: Prepared,
        threads: int,
        folder: RunFolder,
        listener: Listener | None,
        started: float,
    ) -> None:
        self.prepared, self.folder, self.listener = prepared, folder, listener
        self.net, self.data = prepared.net, prepared.data
        self.config = config = prepared.config.replace({"threads": threads})
        self.trains_backward = config.backward != "none"
        self.test = prepared.reader(prepared.data.test)
        watched = prepared.validation
        self.watched = self.test if watched is None else prepared.reader(watched)
        self.units = pixel_units(self.data)
        self.environment = environment(self.net)
        self.started, self.saved_at = started, time.perf_counter()
        self.last_good: tuple[Any, Any] | None = None
        self.trainer = trainer_of(prepared, evaluate=self._scores, callbacks=[self._epoch])

    @property
    def config_text(self) -> str:
        comment = (
            f"A run of nembp {nembp.__version__}; `nembp train --config` with this file repeats "
            "it, bit\nfor bit with the same build of NumPy and number of threads."
        )
        return to_toml(self.config, comment)

    def plan(self) -> Row:
        """Describe what is about to happen."""
        config, data = self.config, self.data
        return config.as_dict() | {
            "run": str(self.folder.path),
            "training_samples": len(self.prepared.train),
            "test_samples": len(data.test),
            "shape": list(data.shape),
            "classes": len(data.classes),
            "sizes": [layer.size for layer in self.net.layers],
            "parameters": self.net.parameter_count,
            "device": self.net.backend.describe(),
            "scored_on": self._scored_on(),
        }

    def train(self, on_end: Listener | None) -> Row:
        """Train, save and score; errors of the training are raised once that is done."""
        ending, history = Ending.of(self.trainer.run), self.trainer.history
        interrupted = ending.status == "interrupted"
        if interrupted and self.last_good is not None:  # the step in progress may be half done
            self.net.restore(self.last_good)
        if history.stopped_early:
            ending.status = "stopped early"
        done = len(history.epochs)
        summary = self._finish(ending.status, keep=not interrupted or done > 0)
        if on_end is not None:
            on_end(summary)
        file = self.folder.path / MODEL
        ending.reraise(file, "model", done=f"epoch {done}", learned=done > 0)
        return summary

    # -- an epoch --------------------------------------------------------------------------------
    def _scores(self, net: Network) -> dict[str, float]:
        with np.errstate(invalid="ignore", divide="ignore"):
            return evaluate(net, self.watched, self.prepared.centroids, units=self.units)

    def _scored_on(self) -> str:
        return "test" if self.watched is self.test else "validation"

    def _epoch(self, row: dict[str, float]) -> bool | None:
        self.last_good = self.net.snapshot()
        self.folder.append(row | {"epoch": int(row["epoch"]), "scored_on": self._scored_on()})
        if time.perf_counter() - self.saved_at > SAVE_EVERY:
            self._save()
            self.saved_at = time.perf_counter()
        return None if self.listener is None else self.listener(row)

    # -- the end ---------------------------------------------------------------------------------
    def _finish(self, status: str, *, keep: bool) -> Row:
        """Save the model, score it on the test split, and write picture and summary."""
        history, config = self.trainer.history, self.config
        scores: Row = {}
        picture = None
        if keep:
            self._save()
            with np.errstate(all="ignore"):
                scores = dict(
                    evaluate(self.net, self.test, self.prepared.centroids, units=self.units)
                )
            picture = self._draw()
        seconds = sum(row["seconds"] for row in history.epochs)
        seen = len(history.epochs) * self.trainer.reader.n
        last = history.epochs[-1] if history.epochs else {}
        names = ("forward/accuracy", "forward/nll", "backward/nll", "backward/centroid_error")
        summary = {
            "status": status,
            "run": str(self.folder.path.resolve()),
            **dict.fromkeys(names),
            **scores,
            "epochs": len(history.epochs),
            "best_epoch": history.best_epoch,
            "seconds": seconds,
            "wall_seconds": time.perf_counter() - self.started,
            "samples_per_second": seen / seconds if seconds else None,
            "device": self.net.backend.describe(),
            "dataset": self.data.name,
            "seed": config.seed,
            "backward_trained": self.trains_backward,
            "parameters": self.net.parameter_count,
            "picture": picture,
            **{key: value for key, value in last.items() if key.startswith(("train/", "noise/"))},
            "config": config.as_dict(),
            "environment": self.environment,
        }
        self.folder.end(summary)
        return summary

    def _save(self) -> None:
        data = self.data
        model = Model(
            net=self.net,
            shape=data.shape,
            classes=data.classes,
            target_names=data.target_names,
            x_scaling=data.x_scaling,
            y_scaling=data.y_scaling,
            pixel_scaling=data.pixel_scaling,
            centroids=self.prepared.centroids,
            is_image=data.is_image,
            dataset=data.name,
            settings=self.config.as_dict() | named_features(data),
            environment=self.environment,
        )
        save_model(self.folder.path / MODEL, model)

    def _draw(self) -> str | None:
        """Draw each class's backward sample beside its centroid, where there are classes."""
        data, centroids = self.data, self.prepared.centroids
        if centroids is None:
            return None
        from nembp.plotting.pictures import backward_picture

        samples = self.net.backend.to_numpy(self.net.reversed.predict(np.eye(data.outputs)))
        pair = [samples, centroids]
        if self.units is not None:  # images are drawn from [0, 1], tables in their own units
            pair = [self.units(part) for part in pair]
        pair = [part.reshape(-1, *data.shape) for part in pair]
        if not data.is_image:
            pair = [data.x_scaling.invert(part) for part in pair]
        path = self.folder.path / PICTURE
        backward_picture(path, pair[0], pair[1], data.shape, data.classes)
        return str(path.resolve())


def trainer_of(
    prepared: Prepared,
    *,
    evaluate: Callable[[Network], dict[str, float]] | None = None,
    callbacks: Sequence[Callback] = (),
) -> Trainer:
    """Return the trainer that a configuration describes.

    Parameters
    ----------
    prepared : Prepared
        What it trains.
    evaluate, callbacks
        As in `nembp.engine.training.Trainer`.
    """
    config = prepared.config
    return Trainer(
        prepared.net,
        prepared.reader(prepared.train, augmented=True),
        epochs=config.epochs or 1,
        batch_size=config.batch_size or 1,
        optimizer=get_optimizer(
            config.optimizer or "adam", config.learning_rate, config.weight_decay or 0.0
        ),
        schedule=config.schedule or "cosine",
        backward=config.backward != "none",
        noise=_noise(config),
        seed=config.seed or 0,
        evaluate=evaluate,
        patience=config.patience,
        callbacks=callbacks,
        cuda_graphs=config.cuda_graphs != "off",
    )


def _noise(config: RunConfig) -> dict[str, Noise]:
    """Return the noise of each direction and place, as `Trainer` takes it."""
    apart = ("noise_target", "noise_place")
    values = {name.removeprefix("noise_"): value for name, value in vars(config).items()
              if name.startswith("noise_") and name not in apart}  # fmt: skip
    noise = Noise(kind=config.noise or "none", **values)  # type: ignore[arg-type]
    target = str(config.noise_target)
    directions = ("forward", "backward") if target == "both" else (target,)
    return {
        direction if place == "target" else f"{direction}/{place}": noise
        for direction in directions
        for place in config.noise_place or ("target",)
    }
