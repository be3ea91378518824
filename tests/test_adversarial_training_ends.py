"""Adversarial training stops where it should, goes on from there, and allocates nothing."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from adversarial_cases import KINDS, NOISY, parameters, trainer_of

from nembp.adversarial import AdversarialSettings
from nembp.datasets import Scaling, Split
from nembp.engine.noise import Noise
from nembp.engine.optimizers import SGD
from nembp.errors import DivergenceError


# -- it stops --------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_divergence_restores_the_last_good_parameters(kind):
    options = {"iterations": 400, "report_every": 5}
    settings = AdversarialSettings(kind, clip=1e30, averaging=0.5, bidirectional="both")
    trainer = trainer_of(settings, **options)
    for _ in range(20):
        trainer.step()
    trainer._check_finite()
    good = parameters(trainer)
    trainer.generator.parameters[0] = np.nan
    with pytest.raises(DivergenceError, match=r"of iteration 20 were restored\. Lower") as raised:
        trainer.run()
    assert raised.value.exit_code == 5
    assert all(np.array_equal(a, b) for a, b in zip(parameters(trainer), good, strict=True))
    assert np.isfinite(trainer.sample(3)).all()


def test_a_learning_rate_that_is_too_high_diverges():
    trainer = trainer_of(
        AdversarialSettings("wasserstein", clip=1e38),
        optimizers=(SGD(1e12), SGD(1e12)),
        iterations=500,
    )
    with pytest.raises(DivergenceError, match="1e\\+12"):
        trainer.run()
    assert all(np.isfinite(values).all() for values in parameters(trainer))


def test_a_callback_ends_the_training():
    rows = []

    def stop(row):
        rows.append(row)
        return row["iteration"] >= 20

    trainer = trainer_of(iterations=100, callbacks=[stop, lambda row: None])
    assert trainer.run().rows == rows
    assert trainer.iteration == 20


def test_a_run_goes_on_where_a_callback_stopped_it():
    whole = trainer_of(iterations=40)
    whole.run()
    parted = trainer_of(iterations=40, callbacks=[lambda row: row["iteration"] == 20])
    parted.run()
    parted.callbacks.clear()
    parted.run()
    assert np.array_equal(whole.generator.parameters, parted.generator.parameters)
    assert [row["iteration"] for row in parted.history.rows] == [10, 20, 30, 40]


# -- it allocates nothing --------------------------------------------------------------------------
@pytest.fixture
def _small_ufunc_buffers():
    before = np.setbufsize(16)
    yield
    np.setbufsize(before)


ARMS = {
    "vanilla": (AdversarialSettings(), ()),
    "both": (AdversarialSettings(bidirectional="both", averaging=0.9), NOISY),
    "flow": (AdversarialSettings(bidirectional="both", backward_flow=True), ()),
    "classes": (AdversarialSettings(bidirectional="both", classes=8), ()),
    "permuted": (AdversarialSettings(bidirectional="both", backward_permuted=True), ()),
    "critic": (AdversarialSettings("wasserstein", critic_steps=1), ("critic/input",)),
    "penalty": (AdversarialSettings("wasserstein-gp", bidirectional="both", critic_steps=1), ()),
}


@pytest.mark.usefixtures("_small_ufunc_buffers")
@pytest.mark.parametrize("arm", list(ARMS))
def test_a_step_allocates_nothing(arm):
    settings, places = ARMS[arm]
    noise = dict.fromkeys(places, Noise("nem", std=0.1))
    wide = Split(np.zeros((4096, 64), np.float32), np.arange(4096) % 8)
    data = type("Data", (), {"train": wide, "x_scaling": Scaling(), "y_scaling": Scaling()})
    trainer = trainer_of(settings, data=data, hidden=(64, 64), batch_size=1024, noise=noise)
    for _ in range(2):
        trainer.step()
    tracemalloc.start()
    try:
        trainer.step()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        trainer.step()
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    # the smallest array of a layer has 1024 rows of 64 neurons: 262144 bytes; weights 16384.
    # Python's objects of a step, and the views of a batch of indices, stay below 15000
    assert peak < 15000
