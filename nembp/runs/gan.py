"""Adversarial runs: data, players and scorer from a configuration; training; a folder of results.

A generator's file is that of a network from z to raw samples, a discriminator's one from raw
samples to its label; both are models that every command can read. What the format of
`nembp.checkpoints` has no place for is in their settings.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nembp.adversarial.data import DATA, draw_latent, load_adversarial
from nembp.adversarial.scores import Scorer, average_scores, scorer_for
from nembp.adversarial.settings import AdversarialSettings
from nembp.adversarial.trainer import AdversarialTrainer, check_noise
from nembp.architecture import generator_network, network
from nembp.backend import stream
from nembp.checkpoints import Model, fitting, load_checkpoint, save_model
from nembp.datasets import Dataset, Scaling, available, feature_means
from nembp.datasets.reading import BatchReader
from nembp.datasets.sources import as_rows
from nembp.engine.likelihoods import Score
from nembp.engine.network import Network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import OPTIMIZERS, Optimizer
from nembp.engine.training import set_input_bias
from nembp.errors import ArchitectureError, DataError, DivergenceError
from nembp.plotting import pictures
from nembp.runs.folder import CHECKPOINT, CONFIG, METRICS, SUMMARY, RunFolder, newest_checkpoint
from nembp.runs.gan_config import DECAY, MOMENTUM, SCALES, GanConfig, gan_recipe
from nembp.runs.predicting import PLAYER, PLAYERS, answer, config_of, load_run, write_arrays
from nembp.runs.run import OF_THE_MACHINE, Note, Path_, Row, Run, choose_backend, silent
from nembp.runs.training import READ_OPTIONS, check_batches, noise_settings
from nembp.threads import threads as limit

GENERATOR, DISCRIMINATOR = (f"{player}.npz" for player in PLAYERS)
PICTURE, ANIMATION = "samples.png", "training.gif"
SHAPE: Final = "sample_shape"  # in a player's settings
PAIR: Final = "players"  # there too: a digest of the parameters of both
OTHER_WEIGHTS = 1 << 32  # added to the seed of the discriminator's weights, apart from the other's
EARLY = 2500  # samples scored while a run learns, at most; its last checkpoints have more
SCORED_SEED = 1 << 20  # of the z that are scored, apart from those that are drawn
IMAGES, POINTS = 64, 1000  # that are drawn
COLUMNS = 8  # of a sheet of pairs
COUNTS = "iteration", "seconds", "iterations_per_second"  # of a row
OF_ALL = "averaged", "iterations", "device", "dataset", "environment"  # what seeds share


# -- from a configuration to what is trained -------------------------------------------------------
@dataclass(frozen=True, eq=False)
class PreparedGan:
    """What an adversarial run trains."""

    config: Any  # GanConfig, complete: a recipe has filled what was open
    data: Dataset  # what is to be imitated
    settings: AdversarialSettings
    generator: Network  # before their first step
    discriminator: Network
    scorer: Scorer  # of what the generator makes

    @property
    def net(self) -> Network:
        """The generator, by whose place a run is known."""
        return self.generator


def load_gan_data(config: GanConfig) -> Dataset:
    """Load or draw the data set that a configuration names, images scaled to [0, 1]."""
    name, known = config.dataset, [*DATA, *available()]
    if name not in known:
        raise ArchitectureError(f"no data set {name!r:.80}: expected one of {', '.join(known)}")
    names = ("samples", "modes", "std", "scale", "limit", "image_size", *READ_OPTIONS)
    options = {"scale": SCALES.get(name)} | config.chosen()
    options = {key: options[key] for key in names if key in options}
    return load_adversarial(name, config.data_dir, seed=config.split_seed or 0, **options)


def prepare_gan(config: GanConfig, note: Note = silent) -> PreparedGan:
    """Load the data, fill in the recipe, build both players and get the scorer."""
    data = load_gan_data(config)
    for text in data.notes:
        note(text)
    filled: Any = gan_recipe(data, config)
    if filled.classes and not data.is_classification:
        raise ArchitectureError(
            f"classes tells the real classes apart, but {data.source} has none; use --no-classes"
        )
    if filled.latent_law == "binary" and filled.latent_std != 1.0:
        raise ArchitectureError(
            f"a binary z is 0 or 1, got latent_std {filled.latent_std:g}; leave it out, or use "
            "--latent-law gaussian"
        )
    names = {field.name for field in fields(AdversarialSettings)} & vars(filled).keys()
    chosen = {name: getattr(filled, name) for name in names}
    settings = AdversarialSettings(**chosen | {"classes": filled.classes * len(data.classes)})
    check_noise(noise_of(filled), settings)
    for option, table in (("momentum", MOMENTUM), ("decay", DECAY)):
        if getattr(filled, option) is not None and filled.optimizer not in table:
            raise ArchitectureError(
                f"{option} is of {' and '.join(table)}, and the optimizer is {filled.optimizer}; "
                "leave it out"
            )
    backend = choose_backend(filled.device, note)
    path = None if filled.data_dir is None else os.path.abspath(filled.data_dir)
    samples = data.shape if data.is_image else data.features
    shared: dict[str, Any] = {"device": backend, "dtype": filled.dtype}
    generator = generator_network(
        filled.latent, filled.generator, samples, activation=filled.generator_activation,
        forward="bernoulli" if data.is_image else "gaussian",
        backward="bernoulli" if filled.latent_law == "binary" else "gaussian",
        seed=filled.seed, **shared,
    )  # fmt: skip
    forward = "multinomial" if settings.classes else "bernoulli"
    discriminator = network(
        samples, filled.discriminator, settings.classes + 1,
        activation=filled.discriminator_activation,
        forward=Score() if settings.has_critic else forward, backward="gaussian",
        seed=filled.seed + OTHER_WEIGHTS, **shared,
    )  # fmt: skip
    for net in (generator, discriminator):
        check_batches(net.layers, min(filled.batch_size, len(data.train)))
    set_input_bias(discriminator, feature_means(data.train, data.x_scaling))
    scorer = scorer_for(data, note=note)  # the same for all runs: its seed is not theirs
    samples = filled.scored_samples or scorer.samples
    if min(samples, len(data.train)) < scorer.least:
        raise DataError(
            f"{data.source}: {len(data.train)} samples to imitate, {samples} scored ones; expected "
            f"at least {scorer.least} of both (--scored-samples)"
        )
    changes = {"device": backend.name, "data_dir": path, "scored_samples": samples}
    return PreparedGan(filled.replace(changes), data, settings, generator, discriminator, scorer)


def noise_of(config: Any) -> dict[str, Noise]:
    """Return the noise of each place, as `AdversarialTrainer` takes it."""
    noise = noise_settings(config, "noise_place", "noise_schedule", "noise_until")
    return dict.fromkeys(config.noise_place, noise)


def _optimizer(config: Any, rate: float) -> Optimizer:
    adam = config.optimizer == "adam"
    more = {
        "beta1" if adam else "momentum": config.momentum,
        "beta2" if adam else "decay": config.decay,
    }
    return OPTIMIZERS[config.optimizer](rate, **{k: v for k, v in more.items() if v is not None})


def gan_trainer(prepared: PreparedGan, on_row: Callable[[Row], Any] = silent) -> AdversarialTrainer:
    """Return the trainer that a configuration describes, which is scored at even steps.

    ``on_row`` is told each of its rows, and ends the training by True: ``iteration``, the players'
    objectives since the one before, ``noise/...``, the scores, and ``seconds`` without scoring.
    """
    config, data, net = prepared.config, prepared.data, prepared.discriminator
    scalings = data.x_scaling, data.y_scaling
    reader = BatchReader(data.train, *scalings, data.outputs, net.backend, net.dtype)
    every = -(-config.iterations // config.checkpoints)

    def scored(row: Row) -> bool:
        row["iteration"] = int(row["iteration"])
        before = trainer.rows[-2] if len(trainer.rows) > 1 else {"iteration": 0, "seconds": 0.0}
        done = row["iteration"] - before["iteration"]
        row["seconds"] = before["seconds"] + done / row["iterations_per_second"]
        row["iterations_per_second"] = row["iteration"] / row["seconds"]
        rows_to_come = -((row["iteration"] - config.iterations) // every)
        n = config.scored_samples
        n = min(n, EARLY) if rows_to_come >= config.averaged else n
        samples = trainer.sample(n, seed=SCORED_SEED + row["iteration"])
        with np.errstate(all="ignore"):
            row |= prepared.scorer.score(samples)
        return bool(on_row(row))

    rates = config.learning_rate, config.discriminator_rate
    trainer = AdversarialTrainer(
        prepared.generator, net, reader, prepared.settings, batch_size=config.batch_size,
        iterations=config.iterations, schedule=config.schedule, noise=noise_of(config),
        optimizers=(_optimizer(config, rates[0]), _optimizer(config, rates[1])), seed=config.seed,
        report_every=every, callbacks=[scored], cuda_graphs=config.cuda_graphs != "off",
    )  # fmt: skip
    return trainer


def final_scores(config: Any, rows: Sequence[Row]) -> dict[str, float]:
    """Return the means of the scores over the last checkpoints."""
    scores = [
        {key: row[key] for key in row if "/" not in key and key not in COUNTS} for row in rows
    ]
    return average_scores(scores, config.averaged)


def gan_replicate(config: GanConfig) -> dict[str, Any]:
    """Train as configured and return what was measured, without a file.

    ``status``: "finished", or "diverged", which has no scores; ``curves``: the values of each key
    of the checkpoints' rows; ``scores``: means over the last checkpoints; ``seconds``; ``threads``.
    """
    began = time.perf_counter()
    with limit(config.threads):
        prepared = prepare_gan(config)
    with limit(prepared.config.threads) as count:
        trainer = gan_trainer(prepared)
        try:
            trainer.run()
            status, scores = "finished", final_scores(prepared.config, trainer.rows)
        except DivergenceError:
            status, scores = "diverged", {}
    rows = trainer.rows
    keys = [key for key in (rows[0] if rows else ()) if key not in COUNTS[1:]]
    curves = {key: [row[key] for row in rows] for key in keys}
    seconds = time.perf_counter() - began
    return {"status": status, "curves": curves, "scores": scores, "seconds": seconds,
            "threads": count}  # fmt: skip


# -- a run -----------------------------------------------------------------------------------------
def load_players(run: Path_) -> list[Network]:
    """Load the two players of a run; they must be of the same moment."""
    models = [load_run(run, player=name) for name in PLAYERS]
    if models[0].settings.get(PAIR) != models[1].settings.get(PAIR):
        raise DataError(
            f"{os.fspath(run)}: {GENERATOR} and {DISCRIMINATOR} were saved at different moments; "
            "expected both of one run as it left them"
        )
    return [model.net for model in models]


class GanRun(Run):
    """A run of `nembp gan`; ``start`` is a run whose players are the first ones.

    ``samples.png`` (what the generator draws) is written anew at each checkpoint, and
    ``training.gif`` (these pictures in a row) at the end.
    """

    kind = GanConfig
    title = "An adversarial run of nembp"
    saved = GENERATOR, "generator"
    pictures = "picture", "animation"
    files = CONFIG, METRICS, GENERATOR, DISCRIMINATOR, SUMMARY, PICTURE, ANIMATION, CHECKPOINT

    @classmethod
    def prepare(cls, config: GanConfig, note: Note, start: Path_ | None) -> PreparedGan:
        found = [] if start is None else load_players(start)  # before a classifier is trained
        prepared = prepare_gan(config, note)
        new = prepared.generator, prepared.discriminator
        for name, old, net in zip(PLAYERS, found, new, strict=False):
            if old.layers != net.layers or old.maps != net.maps:
                sizes = ["-".join(str(layer.size) for layer in each.layers) for each in (old, net)]
                raise ArchitectureError(
                    f"{os.fspath(start or '')}: its {name} is {sizes[0]}, the new one {sizes[1]} "
                    "or of other layers; start from a run of the same players (--config "
                    "RUN/config.toml says which)"
                )
            net.restore(old.snapshot())
        return prepared

    def __init__(self, prepared: PreparedGan, *rest: Any) -> None:
        super().__init__(prepared, *rest)
        self.trainer = gan_trainer(prepared, self._checkpoint)
        self.film = pictures.Film()
        self.good: list[Network] | None = None  # players of the last checkpoint, on the host

    def about(self) -> Row:
        nets = {"generator": self.net, "discriminator": self.prepared.discriminator}
        return {
            "training_samples": len(self.data.train),
            "sizes": {name: [layer.size for layer in net.layers] for name, net in nets.items()},
            "parameters": {name: net.parameter_count for name, net in nets.items()},
            "scored_by": self.prepared.scorer.describe(),
        }

    def state(self) -> Row:
        return super().state() | {"film": self.film.state()}

    def resume(self, state: Row) -> None:
        super().resume(state)
        self.film.resume(state["film"])
        self.rows = [row | {key: row[key] for key in COUNTS} for row in self.trainer.rows]
        if self.rows:
            self.good, self.done = self._copies(), self.rows[-1]["iteration"]

    def _checkpoint(self, row: Row) -> bool:
        self.good, self.done = self._copies(), row["iteration"]
        data, scorer, sample = self.data, self.prepared.scorer, self.trainer.sample
        words = f"{scorer.headline.replace('_', ' ')} {row[scorer.headline]:.4g}"
        if scorer.headline == "modes":
            words = f"{row['modes']:.0f} of {scorer.describe()['most']} modes"
            words += f", {row['high_quality']:.0%} near one" if "high_quality" in row else ""
        title = f"iteration {self.done:,}: {words}"
        if data.is_image:
            frame = pictures.image_frame(sample(IMAGES), data.shape, title)
        else:
            points = as_rows(data.test.x)[:POINTS]
            real = data.x_scaling.apply(points, np.float64).reshape(len(points), -1)
            frame = pictures.scatter_frame(real, sample(POINTS), title)
        self.film.add(frame)
        self.film.write_picture(self.folder.file(PICTURE))
        return self.after_row(row, last=self.done == self.trainer.iterations)

    def _copies(self) -> list[Network]:
        return [net.to("cpu") for net in (self.trainer.sampler, self.prepared.discriminator)]

    def restore(self, status: str) -> bool:
        """Keep the players as they are, unless they diverged unnoticed (an average may)."""
        if status == "failed" and self.good is not None:
            return True
        players, seen = self._copies(), self.trainer.iteration
        finite = all(np.isfinite(part).all() for net in players for part in net.snapshot())
        if finite and (seen or status != "interrupted"):
            self.good = players
            self.done = self.done if status == "diverged" else seen
        elif self.good is None and status != "interrupted":
            self.good = [self.net.to("cpu"), players[1]]
        return self.good is not None

    def save(self) -> None:
        """Write both players; they change places with older ones together."""
        assert self.good is not None
        digest = hashlib.sha256()
        for net in self.good:
            digest.update(np.ascontiguousarray(net.parameters).tobytes())
        places = [self.folder.file(name) for name in (GENERATOR, DISCRIMINATOR)]
        parts = [place.with_name(f".nembp-{place.stem}.part") for place in places]
        try:
            for part, model in zip(parts, self._models(digest.hexdigest()[:16]), strict=True):
                save_model(part, model)
            for part, place in zip(parts, places, strict=True):
                os.replace(part, place)
        finally:
            for part in parts:
                part.unlink(missing_ok=True)

    def _models(self, digest: str) -> list[Model]:
        """Return a network from z to raw samples, and one from those to their label."""
        data, (generator, discriminator) = self.data, self.good or self._copies()
        settings = [{SHAPE: list(data.shape), PAIR: digest, PLAYER: name} for name in PLAYERS]
        names = data.feature_names or tuple(f"x{k}" for k in range(data.features))
        scaling = [
            np.broadcast_to(value, data.shape).reshape(-1) if np.ndim(value) else float(value)
            for value in (data.x_scaling.offset, data.x_scaling.factor)
        ]
        of_z = {"shape": (generator.inputs,), "x_scaling": Scaling(), "is_image": False}
        of_x = {"y_scaling": Scaling(*scaling), "classes": (), "target_names": names}
        classes = (*data.classes, "generated") if discriminator.outputs > 1 else ()
        target = {"target_names": () if classes else ("real",), "y_scaling": Scaling()}
        models = [
            self.model(generator, settings[0], **of_z, **of_x, pixel_scaling=None),
            self.model(discriminator, settings[1], classes=classes, **target),
        ]
        models[0].settings.pop("feature_names", None)  # of samples, not of z
        return models

    def summarize(self, *, kept: bool) -> Row:
        trainer, rows, config = self.trainer, self.trainer.rows, self.config
        why, about = trainer.why_not_captured, self.about()
        if why and config.cuda_graphs != "off":
            self.told.on_note(f"iterations made call by call: {why}")
        return {
            "scores": final_scores(config, rows), "averaged": min(config.averaged, len(rows)),
            "last": rows[-1] if rows else {}, "captured_iterations": trainer.captured,
            "why_not_captured": why, "seconds": rows[-1]["seconds"] if rows else 0.0,
            "parameters": about["parameters"], "scored_by": about["scored_by"],
        }  # fmt: skip

    def draw(self) -> dict[str, str]:
        if not self.trainer.rows:  # and so no frame
            return {}
        self.film.write_gif(self.folder.file(ANIMATION))
        return {"picture": PICTURE, "animation": ANIMATION}


run_gan, resume_gan = GanRun.begin, GanRun.go_on


# -- several seeds ---------------------------------------------------------------------------------
def run_seeds(
    config: GanConfig, seeds: int, out_dir: Path_ | None = None, *, force: bool = False,
    start: Path_ | None = None, resume: Path_ | None = None,
    changes: Mapping[str, Any] | None = None, on_end: Callable[[Row], Any] = silent,
    on_note: Note = silent, **told: Any,
) -> Row:  # fmt: skip
    """Train with ``config.seed`` and the seeds after it, one after the other, and sum up.

    The folder gets a run folder ``seed0`` and so on for each seed, and a ``summary.json``, which is
    returned: of each score the mean over the seeds that finished (``scores``), their standard
    deviation (``deviations``) and ``values``; ``seeds``, ``diverged`` and all summaries, ``runs``.
    ``resume`` names the folder of such runs to go on with, under ``changes``: seeds that are
    finished stay, those in progress go on, and the others begin, as the first of them did. A seed
    that diverges is raised at the end, and so is an interruption.
    """
    changes = dict(changes or {})
    if resume is not None:
        found = [begun for _, place in _seeds_in(Path(resume)) if (begun := _begun(place))]
        if not found:
            raise DataError(
                f"{resume}: holds no seed's run to go on with; expected the folder of "
                "`nembp gan --seeds N`"
            )
        config, start = found[0]
        out_dir, force, changes = resume, True, {"iterations": config.iterations} | changes
    first = config.seed or 0
    numbers = range(first, first + seeds)
    own = {key: getattr(config, key) for key in ("seed", "iterations", *OF_THE_MACHINE)}
    began, runs, interruption = time.perf_counter(), list[Row](), None
    name = f"gan-{config.dataset}-seeds{seeds}"
    with RunFolder(out_dir, name, force=force, files=(SUMMARY,)) as folder:
        # each seed takes its place by itself
        older, folder.replaces = folder.replaces and resume is None, False
        for seed in numbers:
            place = folder.path / f"seed{seed}"
            told |= {"on_end": runs.append, "on_note": on_note if seed == first else silent}
            there = _begun(place) if resume is not None else None
            try:
                # another run may be there, which is not one of these
                if there is not None and (there[0].replace(own), there[1]) == (config, start):
                    resume_gan(place, changes, **told)
                else:
                    new = config.replace({**changes, "seed": seed})
                    run_gan(new, place, force=force and place.exists(), start=start, **told)
            except DivergenceError:
                continue
            except KeyboardInterrupt as error:
                if not runs:
                    raise
                interruption = error
                break
        if older:  # whose files go, but for those of seeds of now
            seeds_of_then = [place for seed, place in _seeds_in(folder.path) if seed not in numbers]
            for place in (folder.path, *seeds_of_then):
                for file in GanRun.files:
                    with contextlib.suppress(OSError):
                        (place / file).unlink()
                with contextlib.suppress(OSError):  # seeds, or somebody else's files, are in it
                    place.rmdir()
        summary = _sum_up(folder.path, runs) | {"wall_seconds": time.perf_counter() - began}
        if interruption is not None:
            summary["status"] = "interrupted"
        folder.write_summary(summary)
    on_end(summary)
    if interruption is not None:
        raise KeyboardInterrupt(
            f"interrupted after {len(summary['seeds'])} of {seeds} seeds; "
            f"{folder.path / SUMMARY} sums them up; "
            f"`nembp gan --resume {folder.path} --seeds {seeds}` goes on"
        ) from interruption
    if summary["diverged"]:
        lost = ", ".join(map(str, summary["diverged"]))
        raise DivergenceError(
            f"training diverged with {len(summary['diverged'])} of {seeds} seeds ({lost}), which "
            f"are left out of the means. Lower the learning rate; {folder.path} keeps the last "
            "good models"
        )
    return summary


def _seeds_in(path: Path) -> list[tuple[int, Path]]:
    """Return the folders of seeds in one, in order."""
    places = [place for place in path.glob("seed*") if re.fullmatch("seed[0-9]+", place.name)]
    return sorted((int(place.name[4:]), place) for place in places)


def _begun(place: Path) -> tuple[GanConfig, str | None] | None:
    """Return the configuration of the run in a folder, and what it started from; None if none."""
    checkpoint = newest_checkpoint(place)
    if checkpoint is None:
        return None
    header, _ = load_checkpoint(checkpoint)
    with fitting(checkpoint):
        return GanConfig(**header["config"]), header["start"]


def _sum_up(path: Path, runs: Sequence[Row]) -> Row:
    whole = [run for run in runs if run["status"] == "finished"]
    keys = list(whole[0]["scores"]) if whole else []
    values = {key: [run["scores"][key] for run in whole] for key in keys}
    stdev = statistics.stdev if len(whole) > 1 else lambda each: math.nan
    return {
        "status": "finished" if len(whole) == len(runs) else runs[-1]["status"],
        "run": str(path.resolve()),
        "seeds": [run["seed"] for run in whole],
        "diverged": [run["seed"] for run in runs if run["status"] == "diverged"],
        "scores": {key: statistics.fmean(each) for key, each in values.items()},
        "deviations": {key: stdev(each) for key, each in values.items()},
        "values": values,
        "seconds": sum(run["seconds"] for run in runs),
        **{key: runs[0][key] for key in OF_ALL},
        "config": {key: value for key, value in runs[0]["config"].items() if key != "seed"},
        "runs": list(runs),
    }


# -- samples ---------------------------------------------------------------------------------------
def draw_samples(
    run: Path_, n: int, out: Path_ | None = None, *, reconstruct: bool = False, seed: int = 0,
    data_dir: Path_ | None = None, device: str = "cpu", note: Note = silent,
) -> dict[str, Any]:  # fmt: skip
    """Draw samples from a run's generator, or send real ones backward to z and forward again.

    With ``reconstruct``, which a bidirectional generator can, ``n`` real test samples (at most all)
    are chosen by ``seed``, which else is of z. ``out`` is a .png (a sheet of images, each real one
    above what came back; or points over real ones), .npy (samples) or .npz (``x``: samples, ``z``:
    what they were made of, ``real``).

    Of real samples ``error`` is the mean of ‖x' − x‖² over that of ‖x − mean x‖², 1 for a generator
    that knows nothing but the mean; and ``z_square`` the mean of z² (of z that the generator knows
    1, or ½ of a binary one).
    """
    model = load_run(run, device, note, player="generator")
    net = model.net
    with fitting(run):
        shape = tuple(int(side) for side in model.settings[SHAPE])
        if math.prod(shape) != net.outputs:
            raise ValueError(f"samples of shape {shape} are not of {net.outputs} outputs")
    config: Any = config_of(model, GanConfig, run, data_dir)
    std, binary = config.latent_std or 1.0, config.latent_law == "binary"
    picture = out is not None and Path(out).suffix.lower() == ".png"
    points = picture and len(shape) < 3
    real: NDArray[Any] = np.empty((0, net.outputs))
    if reconstruct and config.bidirectional not in ("generator", "both"):
        raise ArchitectureError(
            f"{os.fspath(run)}: its generator was trained in one direction (bidirectional "
            f"{config.bidirectional}), so it knows no way back; train one with --bidirectional "
            "generator"
        )
    if reconstruct or points:
        data = load_gan_data(config)
        if data.shape != shape:
            raise DataError(
                f"{data.source}: samples of shape {data.shape}, but the generator makes {shape}; "
                "expected the data of its training. Check --data-dir"
            )
        order = np.arange(min(POINTS, len(data.test)))
        if reconstruct:
            order = stream(seed, "reconstructed").permutation(len(data.test))[:n]
        real = as_rows(data.test.x)[order].reshape(len(order), -1)
    if reconstruct:
        z = answer(model, real, backward=True)
        z = np.round(z) if binary else z  # the most probable code
    else:
        z = std * draw_latent(n, net.inputs, seed, "binary" if binary else "gaussian")
    x = answer(model, z)
    if out is not None and not picture:
        arrays = {"x": x, "real": real} if reconstruct else {"x": x}
        arrays = {name: part.reshape(-1, *shape) for name, part in arrays.items()}
        write_arrays(out, arrays["x"], arrays | {"z": z})
    x, real = (model.y_scaling.apply(part, np.float64) for part in (x, real))
    if points:
        film = pictures.Film()
        film.add(pictures.scatter_frame(real, x))
        film.write_picture(Path(out or ""))
    elif picture:
        tiles = _pairs(shape, real, x)[np.newaxis] if reconstruct else x.reshape(-1, *shape)
        pictures.write_images(Path(out or ""), tiles, tiles.shape[1:])
    facts = {
        "run": os.path.abspath(run), "samples": len(x), "shape": list(shape), "seed": seed,
        "out": None if out is None else os.fspath(out),
    }  # fmt: skip
    if not reconstruct:
        return facts
    spread = np.square(real - real.mean(axis=0)).sum()
    error = float(np.square(x - real).sum() / spread) if spread > 0 else float("nan")
    return facts | {"error": error, "z_square": float(np.square(z).mean()) / std**2}


def _pairs(shape: tuple[int, ...], real: NDArray[Any], x: NDArray[Any]) -> NDArray[Any]:
    """Lay out each real image above what came back, in lines of `COLUMNS`."""
    columns = min(COLUMNS, len(x))
    lines = -(-len(x) // columns)
    pairs = np.full((2, lines * columns, x.shape[1]), pictures.GREY / 255)
    pairs[0, : len(x)], pairs[1, : len(x)] = real, x
    rows = pairs.reshape(2, lines, columns, -1).swapaxes(0, 1).reshape(-1, x.shape[1])
    return pictures.tile_images(rows, shape, columns)
