"""Laws of what leaves memory: model files and pickles."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path

from nembp.backend import Backend
from nembp.checkpoints import Model, environment, load_model, save_model
from nembp.datasets import Scaling
from nembp.engine.network import Network
from nembp.verification.laws.deviations import Deviations, Vector, equal, holds
from nembp.verification.laws.gradients import host

__all__ = ["round_trip"]


def round_trip(net: Network, x: Vector, y: Vector, backend: Backend) -> Deviations:
    """A network saved and loaded, or pickled, is the same, bit for bit, in both directions."""
    model = Model(
        net=net,
        shape=(net.inputs,),
        classes=(),
        target_names=(),
        x_scaling=Scaling(),
        y_scaling=Scaling(),
        centroids=None,
        is_image=False,
        dataset="random",
        settings={},
        environment=environment(net),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.npz"
        save_model(path, model)
        loaded = load_model(path, backend).net
    yield from _same(net, loaded, x, y, "loaded")
    pickled = pickle.loads(pickle.dumps(net.reversed)).reversed
    for flat, same in zip(net.snapshot(), pickled.snapshot(), strict=True):
        yield equal(same, flat, "parameters or statistics of the pickled network")
    yield holds(pickled.reversed.reversed is pickled, "pickled.reversed.reversed is pickled")


def _same(net: Network, other: Network, x: Vector, y: Vector, what: str) -> Deviations:
    names = ("parameters", "statistics")
    for name, flat, same in zip(names, net.snapshot(), other.snapshot(), strict=True):
        yield equal(same, flat, f"{name} of the {what} network")
    kinds = [(n.layers, n.maps, n.likelihood, n.reversed.likelihood, n.dtype) for n in (net, other)]
    yield holds(kinds[0] == kinds[1], f"layers, linear maps, ends and dtype of the {what} network")
    yield equal(host(other, other.predict(x)), host(net, net.predict(x)), f"its {what} prediction")
    ours, theirs = (host(n, n.reversed.predict(y)) for n in (net, other))
    yield equal(theirs, ours, f"its {what} backward prediction")
