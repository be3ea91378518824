"""Model files: a trained network and what is needed to use it, in one checked .npz.

A model is written whole or not at all, is read without pickle, and comes back with the very same
bits. See :mod:`nembp.archives` for the file, :mod:`nembp.kinds` for how a new kind of activation,
synapse or likelihood gets into it.
"""

from __future__ import annotations

import math
import os
import typing
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nembp.archives import content_hash, read_archive, write_archive
from nembp.backend import Backend, get_backend
from nembp.datasets.scaling import Scaling
from nembp.environments import environment
from nembp.errors import ArchitectureError, DataError
from nembp.kinds import decode, encode
from nembp.layers import parameter_count, statistics_count, statistics_views
from nembp.likelihoods import Likelihood
from nembp.network import Layer, Network
from nembp.synapses import Synapse

__all__ = ["Model", "content_hash", "environment", "load_model", "save_model"]

FORMAT, VERSION = "nembp model", 1
REMEDY = (
    "Expected a model file that `nembp train` or save_model wrote; copy it again from where it "
    "was made, or train again."
)
ARRAYS = ("parameters", "x_offset", "x_factor", "y_offset", "y_factor")
PIXEL = ("pixel_offset", "pixel_factor")
OPTIONAL = ("statistics", "centroids", *PIXEL)
IN_DTYPE = ("parameters", "statistics")  # in the network's precision, the others in float64
PLAIN = ("shape", "classes", "target_names", "is_image", "dataset", "settings", "environment")


@dataclass(eq=False)
class Model:
    """A trained network and what is needed to use it on raw values.

    Attributes
    ----------
    net : Network
        Seen from its forward direction; ``net.reversed`` is the other.
    shape : tuple of int
        Of one input sample, (28, 28, 1) for example; its product is ``net.inputs``.
    classes : tuple of str
        Names, one an output; () for regression.
    target_names : tuple of str
        Regression targets, one an output; () for classification.
    x_scaling, y_scaling : Scaling
        Between raw values and the network's units.
    centroids : ndarray of float64, shape (classes, features), or None
        Mean of each class in the network's units.
    is_image : bool
        Whether `shape` is (height, width, channels).
    dataset : str
        Name of the data set that it was trained on.
    settings : dict
        The run's configuration; JSON values, whose tuples are read back as lists.
    environment : dict
        Where it was trained; see `environment`.
    pixel_scaling : Scaling, optional
        Of raw images to [0, 1], where `x_scaling` maps elsewhere; see `to_unit`.
    """

    net: Network
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    target_names: tuple[str, ...]
    x_scaling: Scaling
    y_scaling: Scaling
    centroids: NDArray[np.float64] | None
    is_image: bool
    dataset: str
    settings: dict[str, Any]
    environment: dict[str, Any]
    pixel_scaling: Scaling | None = None

    @property
    def to_unit(self) -> Scaling:
        """Scaling of raw pixels to [0, 1], in which images are read and drawn."""
        return self.x_scaling if self.pixel_scaling is None else self.pixel_scaling


def save_model(path: str | os.PathLike[str], model: Model) -> None:
    """Write a model, bit for bit, in place of whatever `path` held.

    Parameters
    ----------
    path : path
        Commonly ``model.npz``.
    model : Model
        On any device; in float32 or float64.

    Raises
    ------
    ArchitectureError
        If the network is seen from its backward direction or is complex, a layer's or synapse's
        class is not registered (`nembp.kinds.register_kind`), or `settings` are not JSON.
    DataError
        If the parts of the model do not fit together or are not finite: what `load_model` would
        refuse is not written.
    OutputError
        If the file cannot be written. The old file is then still there, whole.
    """
    net, where = model.net, os.fspath(path)
    if net.direction != "forward":
        raise ArchitectureError(f"{where}: not written: save the forward direction, net.reversed")
    if net.dtype not in ("float32", "float64"):
        raise ArchitectureError(
            f"{where}: not written: the network is {net.dtype}; save net.to(dtype='float64')"
        )
    flat = zip(IN_DTYPE, net.snapshot(), strict=True)
    arrays = {name: array for name, array in flat if name == "parameters" or array.size}
    if model.centroids is not None:
        arrays["centroids"] = np.asarray(model.centroids, np.float64)
    scalings = {"x": model.x_scaling, "y": model.y_scaling}
    if model.pixel_scaling is not None:
        scalings["pixel"] = model.pixel_scaling
    for axis, scaling in scalings.items():
        arrays[f"{axis}_offset"] = np.asarray(scaling.offset, np.float64)
        arrays[f"{axis}_factor"] = np.asarray(scaling.factor, np.float64)
    try:
        _check(model)
    except DataError as error:
        raise DataError(f"{where}: not written: {error}") from error
    header = {
        "format": FORMAT,
        "version": VERSION,
        "dtype": net.dtype,
        "layers": encode(net.layers),
        "synapses": encode(net.synapses),
        "forward": encode(net.likelihood),
        "backward": encode(net.reversed.likelihood),
    }
    write_archive(path, header | {key: getattr(model, key) for key in PLAIN}, arrays)


def load_model(path: str | os.PathLike[str], device: str | Backend = "cpu") -> Model:
    """Read a model that `save_model` wrote.

    Parameters
    ----------
    path : path
        The file.
    device : str or Backend
        Where its network is to live; it does not matter where it was trained.

    Returns
    -------
    Model
        With the parameters' very bits, and ``net.reversed`` as always.

    Raises
    ------
    DataError
        If the file is missing, damaged, no model, of another format version, or of an unknown kind.
        Reading takes memory in proportion to the file, and nothing in it can run code.
    DeviceError
        If the device cannot be used.
    """
    backend = get_backend(device)
    header, arrays = read_archive(path, FORMAT, VERSION, ARRAYS + OPTIONAL, REMEDY)
    try:
        return _decode(header, arrays, backend)
    # a kind's class may reject a header's values with any of these
    except (ArithmeticError, MemoryError, RecursionError, TypeError, ValueError) as error:
        raise DataError(f"{os.fspath(path)}: {error or 'out of memory'}. {REMEDY}") from error


def _decode(header: dict[str, Any], arrays: dict[str, NDArray[Any]], backend: Backend) -> Model:
    """Build the model; DataError or ValueError, without the file's name, where that fails."""

    def read(key: str, hint: Any) -> Any:
        try:
            return decode(hint, header.get(key))
        except DataError as error:
            raise DataError(f"{key}: {error}") from error

    dtype = read("dtype", Literal["float32", "float64"])
    layers = read("layers", tuple[Layer, ...])
    synapses = read("synapses", tuple[Synapse, ...])
    ends = read("forward", Likelihood), read("backward", Likelihood)
    coloured = any(name in arrays for name in PIXEL)
    for name in (*ARRAYS, *OPTIONAL):
        if name not in arrays and (name in ARRAYS or (coloured and name in PIXEL)):
            raise DataError(f"the array {name} is missing")
        if name in arrays and arrays[name].dtype != (dtype if name in IN_DTYPE else "float64"):
            raise DataError(f"the array {name} is {arrays[name].dtype}")
    flat = arrays["parameters"], arrays.get("statistics", np.zeros(0, dtype))
    # before anything is allocated by the header's sizes
    sizes = parameter_count(layers, synapses), statistics_count(layers)
    for name, array, count in zip(IN_DTYPE, flat, sizes, strict=True):
        if array.shape != (count,):
            raise DataError(f"{name} of shape {array.shape}, but its layers have {count}")
    net = Network(layers, synapses, *ends, device=backend, dtype=dtype, seed=None)
    net.restore(flat)
    hints = typing.get_type_hints(Model)
    model = Model(
        net=net,
        x_scaling=_scaling(arrays["x_offset"], arrays["x_factor"]),
        y_scaling=_scaling(arrays["y_offset"], arrays["y_factor"]),
        centroids=arrays.get("centroids"),
        pixel_scaling=_scaling(*(arrays[name] for name in PIXEL)) if coloured else None,
        **{key: read(key, hints[key]) for key in PLAIN},
    )
    _check(model)
    return model


def _scaling(offset: NDArray[Any], factor: NDArray[Any]) -> Scaling:
    """Scalars come back as floats."""
    return Scaling(*(each if each.ndim else float(each[()]) for each in (offset, factor)))


def _broadcasts(shape: tuple[int, ...], full: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, full) == full
    except ValueError:
        return False


def _check(model: Model) -> None:
    """Raise DataError unless the parts of a model fit together and are finite."""
    net, shape = model.net, model.shape
    if min(shape, default=0) < 1 or len(shape) > 8 or math.prod(shape) != net.inputs:
        raise DataError(f"samples of shape {shape} do not fit {net.inputs} inputs")
    if model.is_image and len(shape) != 3:
        raise DataError(f"images of shape {shape}; expected (height, width, channels)")
    for what, names in (("classes", model.classes), ("target names", model.target_names)):
        if names and len(names) != net.outputs:
            raise DataError(f"{len(names)} {what} do not fit {net.outputs} outputs")
    sides = [("x_scaling", model.x_scaling, shape), ("y_scaling", model.y_scaling, (net.outputs,))]
    if model.pixel_scaling is not None:
        sides.append(("pixel_scaling", model.pixel_scaling, shape))
    for what, scaling, full in sides:
        for value in (scaling.offset, scaling.factor):
            if not _broadcasts(np.shape(value), full):
                raise DataError(f"{what} of shape {np.shape(value)} does not fit {full}")
    centroids = model.centroids
    if centroids is not None and centroids.shape != (len(model.classes), net.inputs):
        raise DataError(
            f"centroids of shape {centroids.shape} do not fit {len(model.classes)} classes and "
            f"{net.inputs} inputs"
        )
    parameters, statistics = net.snapshot()
    named = ("parameters", parameters), ("statistics", statistics), ("centroids", centroids)
    for what, values in named:
        if values is not None and not np.all(np.isfinite(values)):
            raise DataError(f"{what} hold a NaN or an infinity")
    pairs = chain(*statistics_views(net.layers, statistics))
    if any(pair is not None and np.any(pair[1] < 0.0) for pair in pairs):
        raise DataError("statistics hold a variance below 0")
