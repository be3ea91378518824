"""One replicate: train an arm with a seed and measure it, in whatever process joblib likes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from nembp.engine.metrics import evaluate
from nembp.engine.network import Network
from nembp.errors import DivergenceError
from nembp.experiments.kept_data import kept_data
from nembp.experiments.robustness import robustness
from nembp.runs.config import RunConfig
from nembp.runs.gan_config import GanConfig
from nembp.runs.preparation import pixel_units, prepare
from nembp.runs.training import trainer_of
from nembp.threads import threads

__all__ = ["adversarial", "generator_of", "network_of", "replicate"]

CURVES = {"train/forward/nll": "train/nll", "train/backward/nll": "train/backward/nll"}


def replicate(config: RunConfig, perturbations: Sequence[str] = ()) -> dict[str, Any]:
    """Train as configured, and return what was measured.

    The same configuration gives the same numbers on the same machine with the same threads.

    Parameters
    ----------
    config : RunConfig
        With a seed. Scores are taken on its validation split if it has one, else on the test
        split.
    perturbations : sequence of str
        For `nembp.experiments.robustness`; measured on the test split only.

    Returns
    -------
    dict
        ``status``: "finished", or "diverged", which has no scores; ``curves`` by epoch:
        ``train/nll``, the mean over the epoch's iterations of the clean targets' nll (nats a
        sample) before each step, without any noise; after the epoch ``train/clean_nll`` and
        ``train/error``, the nll of the training samples and the share of them classified wrong;
        and ``noise/...``. ``scores``: those of `nembp.engine.metrics.evaluate` and the robustness;
        ``seconds``; ``threads``.
    """
    began = time.perf_counter()
    with threads(config.threads) as count:
        prepared = prepare(config, data=kept_data(config))
        net, train = prepared.net, prepared.reader(prepared.train)

        def clean(net: Network) -> dict[str, float]:
            if not prepared.data.is_classification:
                return {}
            found = evaluate(net, train, backward=False)
            return {
                "train/clean_nll": found["forward/nll"],
                "train/error": 1.0 - found["forward/accuracy"],
            }

        trainer = trainer_of(prepared, evaluate=clean)
        status, scores = "finished", {}
        try:
            trainer.run()
        except DivergenceError:
            status = "diverged"
        else:
            scored_on = prepared.data.test if prepared.validation is None else prepared.validation
            with np.errstate(all="ignore"):
                scores = evaluate(
                    net,
                    prepared.reader(scored_on),
                    prepared.centroids,
                    units=pixel_units(prepared.data),
                )
            if prepared.validation is None:
                scores |= robustness(prepared, perturbations, config.seed or 0)
    history = trainer.history.epochs
    keys = [key for key in (history[0] if history else ()) if key.startswith(("train/", "noise/"))]
    return {
        "status": status,
        "curves": {CURVES.get(key, key): [row[key] for row in history] for key in keys},
        "scores": scores,
        "seconds": time.perf_counter() - began,
        "threads": count,
    }


def adversarial(config: GanConfig, perturbations: Sequence[str] = ()) -> dict[str, Any]:
    """Train a generator against a discriminator and return what was measured.

    Returns
    -------
    dict
        As `replicate`: ``curves`` are ``course/...`` by checkpoint, ``scores`` the means over the
        last of them.
    """
    from nembp.runs.gan_training import gan_replicate

    row: dict[str, Any] = gan_replicate(config)
    curves = {f"course/{key}": values for key, values in row["curves"].items()}
    return row | {"curves": curves}


def network_of(config: RunConfig) -> Network:
    """Return the network that a configuration describes, before its first step."""
    return prepare(config, data=kept_data(config)).net


def generator_of(config: GanConfig) -> Network:
    """Return the generator that a configuration describes, before its first step."""
    from nembp.runs.gan_preparation import prepare_gan

    return prepare_gan(config).generator
