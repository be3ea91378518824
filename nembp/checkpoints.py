"""Model files: a trained network and what is needed to use it, in one sealed .npz.

A sealed archive is an ordinary ``.npz`` that `numpy.load` opens without pickle: arrays, ``header``
(the bytes of a JSON text) and ``sha256`` (the digest of all others). It is written whole or not at
all. Nothing in it can run code, and reading it takes memory in proportion to the file, whatever its
headers claim. Checkpoints of a training are such archives too.

Activations, linear maps and likelihoods are dataclasses, and are written as
``{"kind": name, field: value, ...}``. A class of your own says its name once, and every model file
can hold it:

    register_kind("linear map", "locally-connected", LocallyConnected)
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import platform
import signal
import sys
import threading
import time
import types
import typing
import zipfile
from collections import ChainMap
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from nembp.backend import Backend, get_backend
from nembp.datasets.arrays import read_npz
from nembp.datasets.assemble import as_array, check_inputs
from nembp.datasets.dataset import class_indices
from nembp.datasets.scaling import Scaling, check_range
from nembp.engine.activations import ACTIVATIONS, Activation
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import LIKELIHOODS, Likelihood, Score
from nembp.engine.linear import AveragePooling, Dense, LinearMap, Reshape, Transposed
from nembp.engine.network import Layer, Network, parameter_count, statistics_count, statistics_views
from nembp.errors import ArchitectureError, DataError, ShapeError, check_choice
from nembp.files import parsing, replacing
from nembp.threads import blas_info
from nembp.version import __version__

Path_ = str | os.PathLike[str]
Arrays = Mapping[str, NDArray[Any]]

# -- sealed archives -------------------------------------------------------------------------------
HEADER, SEAL, VERSION = "header", "sha256", 1


def content_hash(arrays: Arrays) -> str:
    """Return the SHA-256 of every name, dtype, shape and byte, whatever their order in memory."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        kind = array.dtype.newbyteorder("<")
        # dtype and shape fix the number of bytes, so that no two contents read alike
        digest.update(json.dumps([name, kind.str, array.shape]).encode() + b"\n")
        digest.update(np.ascontiguousarray(array, dtype=kind).tobytes())
    return digest.hexdigest()


def write_archive(path: Path_, kind: str, header: Mapping[str, Any], arrays: Arrays) -> None:
    """Write a sealed archive, the same bytes for the same content.

    The header holds JSON values (else an ArchitectureError); ``header`` and ``sha256`` are taken.
    """
    try:
        text = json.dumps({"format": kind, "version": VERSION} | dict(header), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArchitectureError(
            f"{os.fspath(path)}: not written, since its header is not JSON ({error}); expected "
            "finite numbers, strings, True, False, None, lists, and dicts with string keys"
        ) from error
    content = dict(arrays) | {HEADER: np.frombuffer(text.encode(), np.uint8)}
    seal = np.frombuffer(bytes.fromhex(content_hash(content)), np.uint8)
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in (content | {SEAL: seal}).items():
            # numpy.savez can be told not to pickle only since NumPy 2.1
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def read_archive(
    path: Path_, kind: str, remedy: str
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the header and the arrays of a sealed archive, or a DataError with the remedy."""
    path = Path(path)

    def refuse(reason: str, error: Exception | None = None) -> NoReturn:
        raise DataError(f"{path}: {' '.join(reason.split())}. {remedy}") from error

    try:
        arrays = read_npz(path, list, packed=False)
    except DataError as error:  # its own remedy, after the first sentence, is for data sets
        refuse(str(error).removeprefix(f"{path}: ").partition(". ")[0].rstrip("."), error)
    seal = arrays.pop(SEAL, None)
    if HEADER not in arrays or seal is None:
        refuse(f"an .npz archive, but not a {kind}")
    try:
        header = json.loads(arrays[HEADER].tobytes())
    except (ValueError, RecursionError) as error:
        refuse(f"damaged: its header is not JSON ({error})", error)
    if not isinstance(header, dict) or header.get("format") != kind:
        refuse(f"an .npz archive, but not a {kind}")
    version = header.get("version")
    if version != VERSION:
        refuse(f"has format version {version!r:.40}; this nembp reads version {VERSION}")
    if seal.tobytes().hex() != content_hash(arrays):
        refuse("damaged: its content does not match the SHA-256 inside")
    del arrays[HEADER]
    return header, arrays


def environment(net: Network) -> dict[str, Any]:
    """Return, as JSON values, what the bits of a training depend on besides its settings.

    Float products differ in their last bits between builds and between 1 and 2 BLAS threads.
    ``blas`` is None where it is unknown.
    """
    pools = blas_info()
    keys = ("internal_api", "version", "architecture", "num_threads")
    names = zip(("library", "version", "architecture", "threads"), keys, strict=True)
    cupy = sys.modules.get("cupy") if net.backend.name == "gpu" else None
    return {
        "nembp": __version__, "python": platform.python_version(), "numpy": np.__version__,
        "cupy": None if cupy is None else cupy.__version__, "platform": platform.platform(),
        "device": net.backend.describe(),
        "blas": {name: pools[0].get(key) for name, key in names} if pools else None,
    }  # fmt: skip


# -- activations, linear maps and likelihoods as JSON ----------------------------------------------
_FAMILIES: dict[str, tuple[type[Any], MutableMapping[str, Any]]] = {  # classes by names in files
    "activation": (Activation, ACTIVATIONS),
    "linear map": (LinearMap, {
        "dense": Dense, "transposed": Transposed, "convolution": Convolution,
        "average-pooling": AveragePooling, "reshape": Reshape,
    }),
    # files hold critics too, which no option may name as a likelihood
    "likelihood": (Likelihood, ChainMap(LIKELIHOODS, {Score.name: Score})),
}  # fmt: skip


def _family(kind: Any) -> tuple[str, MutableMapping[str, Any]] | None:
    for family, (base, known) in _FAMILIES.items():
        if isinstance(kind, type) and issubclass(kind, base):
            return family, known
    return None


def register_kind(
    family: Literal["activation", "linear map", "synapse", "likelihood"], name: str, kind: type[Any]
) -> None:
    """Let model files hold objects of a class.

    An activation or likelihood also joins `ACTIVATIONS` or `LIKELIHOODS` by this.

    Parameters
    ----------
    family : {"activation", "linear map", "likelihood"}
        What it is; "synapse" is an older word for a linear map.
    name : str
        What files call it; for ever, since old files keep the name.
    kind : type
        A dataclass whose fields are numbers, strings, None, tuples of these, or objects of
        registered classes, with annotations that can be resolved at run time. A field added later
        needs a default, which old files then get.

    Raises
    ------
    ArchitectureError
        If `kind` is no such dataclass, or the name belongs to another class.
    """
    wanted = "linear map" if family == "synapse" else family
    check_choice("family", wanted, _FAMILIES)
    base, kinds = _FAMILIES[wanted]
    if not (issubclass(kind, base) and dataclasses.is_dataclass(kind)):
        raise ArchitectureError(
            f"{kind.__name__} cannot be registered: expected a dataclass that subclasses "
            f"{base.__name__}"
        )
    typing.get_type_hints(kind)  # fails now rather than when a file is read
    known = kinds.setdefault(name, kind)
    if known is not kind:
        raise ArchitectureError(f"{wanted} {name!r} is already registered as {known.__qualname__}")


def encode(value: Any) -> Any:
    """Turn an object of a registered class, or another dataclass of plain values, into JSON values.

    >>> encode(Dense(4, 3))
    {'kind': 'dense', 'inputs': 4, 'outputs': 3}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return encode(value.item())
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise ArchitectureError(
            f"{value!r} cannot be kept in a file; expected a number, a string, None, a tuple of "
            "these, or an object of a registered class (nembp.checkpoints.register_kind)"
        )
    kind: Any = type(value)
    written = {key: encode(getattr(value, f.name)) for key, f in _fields(kind).items()}
    if (family := _family(kind)) is None:
        return written
    names = [name for name, known in family[1].items() if known is kind]
    if not names:
        raise ArchitectureError(
            f"{family[0]} {kind.__qualname__} cannot be kept in a file: its class has no name "
            f'there; call nembp.checkpoints.register_kind("{family[0]}", name, '
            f"{kind.__qualname__}) once"
        )
    return {"kind": names[0]} | written


def decode(hint: Any, written: Any, where: str = "") -> Any:
    """Rebuild a value of an annotated type from what `encode` made.

    The type is a family's base class, a dataclass, int, float, bool, str, None, dict, a Literal, a
    union or a tuple of these. A DataError that begins with ``where`` says what does not fit; a
    class that rejects its values raises what it raises.

    >>> decode(LinearMap, {"kind": "dense", "inputs": 4, "outputs": 3})
    Dense(inputs=4, outputs=3)
    >>> decode(tuple[int, ...] | None, [28, 28, 1])
    (28, 28, 1)
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        *others, last = sorted(arguments, key=lambda option: option is not types.NoneType)
        for option in others:
            with contextlib.suppress(DataError):
                return decode(option, written, where)
        return decode(last, written, where)
    if origin is tuple and isinstance(written, list):
        if arguments[1:] == (Ellipsis,):
            arguments = arguments[:1] * len(written)
        if len(arguments) == len(written):
            return tuple(map(decode, arguments, written, repeat(where)))
    elif isinstance(written, dict) and (_family(hint) or dataclasses.is_dataclass(hint)):
        return _construct(hint, written, where)
    elif hint is float and type(written) is int:
        return float(written)
    elif type(written) is (origin or hint) or (origin is Literal and written in arguments):
        return written  # of just that type: True is no number here
    name = getattr(hint, "__name__", hint)
    raise DataError(f"{where}{written!r:.60} where {name} was expected")


def _construct(kind: type[Any], written: Mapping[str, Any], where: str) -> Any:
    """Build an object of the class that `written` names in a family, else of `kind` itself."""
    name, values = kind.__name__, dict(written)
    if (family := _family(kind)) is not None:
        name = values.pop("kind", None)
        if not isinstance(name, str) or name not in family[1]:
            raise DataError(
                f"{where}{family[0]} of unknown kind {name!r:.60}; expected one of "
                f"{', '.join(family[1])}; import the module that registers it "
                "(nembp.checkpoints.register_kind), or use the version of nembp that wrote it"
            )
        kind = family[1][name]
    fields, none = _fields(kind), dataclasses.MISSING
    required = {key for key, f in fields.items() if f.default is f.default_factory is none}
    if not required <= values.keys() <= fields.keys():
        raise DataError(
            f"{where}{name} has the fields {', '.join(values)!r:.60}; expected "
            f"{', '.join(fields) or 'none'}; another version of nembp may have written it"
        )
    hints, where = typing.get_type_hints(kind), f"{where}{name}: "
    names = {key: fields[key].name for key in values}
    return kind(**{names[key]: decode(hints[names[key]], values[key], where) for key in values})


def _fields(kind: type[Any]) -> dict[str, dataclasses.Field[Any]]:
    """Return the fields by their names in files, which old files keep when a field is renamed."""
    return {f.metadata.get("name", f.name): f for f in dataclasses.fields(kind) if f.init}


# -- models ----------------------------------------------------------------------------------------
FORMAT = "nembp model"
REMEDY = (
    "Expected a model file that `nembp train` or save_model wrote; copy it again from where it "
    "was made, or train again."
)
# fields of a model that the header has as they are
PLAIN = ("shape", "classes", "target_names", "is_image", "dataset", "settings", "environment")
OF_THE_NET: dict[str, Any] = {
    "dtype": Literal["float32", "float64"],
    "layers": tuple[Layer, ...],
    "synapses": tuple[LinearMap, ...],  # an older word for linear maps
    "forward": Likelihood,
    "backward": Likelihood,
}


@dataclass(eq=False)
class Model:
    """A trained network and what is needed to use it on raw values.

    Attributes
    ----------
    net : Network
        Seen from its forward direction.
    shape : tuple of int
        Of one input sample, (28, 28, 1) for example; its product is ``net.inputs``.
    classes, target_names : tuple of str
        Names, one for each output; the one is () for regression, the other for classification.
    x_scaling, y_scaling : Scaling
        Between raw values and the network's units.
    centroids : ndarray of float64, shape (classes, features), or None
        Mean of each class in the network's units.
    is_image : bool
        Whether `shape` is (height, width, channels).
    dataset, settings, environment : str, dict, dict
        Name of the data set that it was trained on, the run's configuration (JSON values, whose
        tuples are read back as lists), and where it was trained; see `environment`.
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

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return class probabilities or targets in their own units, shape (n, outputs).

        Samples have shape (n, *shape) or (n, features), in their own units; a table's columns are
        taken by name, and others left out.
        """
        columns = self.settings.get("feature_names", ())
        x = check_inputs(X, self.net.inputs, columns=columns)
        x = x.reshape(len(x), *self.shape)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = self.x_scaling.apply(x, self.net.dtype)
            y = _in_parts(self.net, scaled.reshape(len(x), -1))
        if not np.isfinite(y).all():
            check_range(x, self.x_scaling, "X")
        return y if self.classes else self.y_scaling.invert(y)

    def predict_labels(self, X: Any) -> NDArray[np.str_]:
        """Return the name of the most probable class of each sample, as text, shape (n,)."""
        if not self.classes:
            raise ArchitectureError("this model predicts numbers; call predict")
        names: NDArray[np.str_] = np.array(self.classes)[self.predict(X).argmax(axis=1)]
        return names

    def predict_inputs(self, y: Any) -> NDArray[np.float64]:
        """Return what the backward direction draws for labels or targets, shape (n, *shape).

        For a class that is an estimate of its centroid, the mean of its samples, not an inverse.
        y holds names of classes, rows of probabilities (n, classes), or targets in their own units.
        """
        y = as_array(y, "y", text=True)
        if self.classes and y.ndim == 1:
            index = class_indices(y.astype(str), self.classes, "y")  # 3.0 is the class 3
            t = np.eye(len(self.classes))[index]
        else:
            t = check_inputs(y.reshape(len(y), -1), None, "y").astype(np.float64)
            if t.shape[1] != self.net.outputs:
                raise ShapeError(
                    f"y has {t.shape[1]} columns; expected {self.net.outputs}, one for each output"
                )
            if not self.classes:
                check_range(t, self.y_scaling, "y")
                t = self.y_scaling.apply(t, np.float64)
        x = _in_parts(self.net.reversed, t)
        return self.x_scaling.invert(x.reshape(len(x), *self.shape))


def _in_parts(net: Network, values: NDArray[Any]) -> NDArray[np.float64]:
    """Predict a thousand rows at a time."""
    parts = [net.predict(values[start : start + 1024]) for start in range(0, len(values), 1024)]
    return np.concatenate([net.backend.to_numpy(part) for part in parts]).astype(np.float64)


def as_model(given: Any) -> Model:
    """Return a model, or that of a fitted estimator or of what `nembp.train` returned."""
    model = given.to_model() if hasattr(given, "to_model") else getattr(given, "model", given)
    if not isinstance(model, Model):
        raise ArchitectureError(
            f"{given!r:.60} is not a Model; expected one, a History of nembp.train or a fitted "
            "estimator"
        )
    return model


def save_model(path: Path_, model: Any) -> None:
    """Write a model, bit for bit, in place of whatever `path` held; commonly ``model.npz``.

    ``model`` is a `Model`, or a fitted estimator or History, which have one.

    Raises
    ------
    ArchitectureError
        If the network is seen from its backward direction or is complex, a layer's or linear map's
        class is not registered (`register_kind`), or `settings` are not JSON.
    DataError, OutputError
        If the parts of the model do not fit together or are not finite, as `load_model` wants them;
        if the file cannot be written. The old file is then still there, whole.
    """
    model = as_model(model)
    net, where = model.net, f"{os.fspath(path)}: not written"
    if net.direction != "forward":
        raise ArchitectureError(f"{where}: save the forward direction, net.reversed")
    if net.dtype not in ("float32", "float64"):
        raise ArchitectureError(f"{where}: {net.dtype} network; save net.to(dtype='float64')")
    try:
        _check(model)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    parameters, statistics = net.snapshot()
    arrays = {"parameters": parameters} | ({"statistics": statistics} if statistics.size else {})
    if model.centroids is not None:
        arrays["centroids"] = np.asarray(model.centroids, np.float64)
    for axis in ("x", "y", "pixel"):
        scaling: Scaling | None = getattr(model, f"{axis}_scaling")
        if scaling is not None:
            arrays[f"{axis}_offset"] = np.asarray(scaling.offset, np.float64)
            arrays[f"{axis}_factor"] = np.asarray(scaling.factor, np.float64)
    parts = net.dtype, net.layers, net.maps, net.likelihood, net.reversed.likelihood
    header = dict(zip(OF_THE_NET, map(encode, parts), strict=True))
    write_archive(path, FORMAT, header | {key: getattr(model, key) for key in PLAIN}, arrays)


def load_model(path: Path_, device: str | Backend = "cpu") -> Model:
    """Read a model that `save_model` wrote, onto a device; it does not matter where it was trained.

    Raises
    ------
    DataError, DeviceError
        If the file is missing, damaged, no model, of another format version, or of an unknown kind;
        if the device cannot be used.
    """
    backend = get_backend(device)
    header, arrays = read_archive(path, FORMAT, REMEDY)
    try:
        return _decoded(header, arrays, backend)
    # a registered class may reject a header's values with any of these
    except (ArithmeticError, RecursionError, TypeError, ValueError) as error:
        raise DataError(f"{os.fspath(path)}: {error}. {REMEDY}") from error


def _decoded(header: Mapping[str, Any], arrays: Arrays, backend: Backend) -> Model:
    own = typing.get_type_hints(Model)
    hints = OF_THE_NET | {key: own[key] for key in PLAIN}
    said = {key: decode(hint, header.get(key), f"{key}: ") for key, hint in hints.items()}
    dtype, layers, maps, *ends = (said.pop(key) for key in OF_THE_NET)
    arrays = {"statistics": np.zeros(0, dtype)} | dict(arrays)
    in_colour = any(name.startswith("pixel_") for name in arrays)
    axes = ("x", "y", "pixel") if in_colour else ("x", "y")
    parts = [f"{axis}_{part}" for axis in axes for part in ("offset", "factor")]
    if missing := [name for name in ("parameters", *parts) if name not in arrays]:
        raise DataError(f"the array {missing[0]} is missing")
    sizes = {"parameters": parameter_count(layers, maps), "statistics": statistics_count(layers)}
    for name, array in arrays.items():
        if array.dtype != (dtype if name in sizes else "float64"):
            raise DataError(f"the array {name} is {array.dtype}")
        if array.shape != (sizes.get(name),) and name in sizes:  # before the network is allocated
            raise DataError(f"{name} of shape {array.shape}, but its layers have {sizes[name]}")
    net = Network(layers, maps, *ends, device=backend, dtype=dtype, seed=None)
    net.restore((arrays["parameters"], arrays["statistics"]))
    pair = [arrays[name] if arrays[name].ndim else float(arrays[name][()]) for name in parts]
    for k, axis in enumerate(axes):
        said[f"{axis}_scaling"] = Scaling(pair[2 * k], pair[2 * k + 1])
    model = Model(net=net, centroids=arrays.get("centroids"), **said)
    _check(model)
    return model


def _check(model: Model) -> None:
    """Raise DataError unless the parts of a model fit together and are finite."""
    net, shape, centroids, classes = model.net, model.shape, model.centroids, len(model.classes)
    if min(shape, default=0) < 1 or len(shape) > 8 or math.prod(shape) != net.inputs:
        raise DataError(f"samples of shape {shape} do not fit {net.inputs} inputs")
    if model.is_image and len(shape) != 3:
        raise DataError(f"images of shape {shape}; expected (height, width, channels)")
    for what, names in (("classes", model.classes), ("target names", model.target_names)):
        if names and len(names) != net.outputs:
            raise DataError(f"{len(names)} {what} do not fit {net.outputs} outputs")
    ends = {"x_scaling": shape, "pixel_scaling": shape, "y_scaling": (net.outputs,)}
    for what, full in ends.items():
        scaling: Scaling = getattr(model, what) or Scaling()
        for value in (scaling.offset, scaling.factor):
            try:
                np.broadcast_to(value, full)
            except ValueError as error:
                raise DataError(f"{what} of shape {np.shape(value)} does not fit {full}") from error
    if centroids is not None and centroids.shape != (classes, net.inputs):
        raise DataError(
            f"centroids of shape {centroids.shape} do not fit {classes} classes and {net.inputs} "
            "inputs"
        )
    parameters, statistics = net.snapshot()
    named = {"parameters": parameters, "statistics": statistics, "centroids": centroids}
    for what, values in named.items():
        if values is not None and not np.all(np.isfinite(values)):
            raise DataError(f"{what} hold a NaN or an infinity")
    pairs = chain(*statistics_views(net.layers, statistics))
    if any(pair is not None and np.any(pair[1] < 0.0) for pair in pairs):
        raise DataError("statistics hold a variance below 0")


# -- checkpoints -----------------------------------------------------------------------------------
CHECKPOINT = "nembp checkpoint"
_STATE, _ARRAY = "state", "an array"  # the JSON text of all that is no array, and what marks one
CHECKPOINT_REMEDY = "Expected a checkpoint that a run of nembp wrote; train again"


def save_checkpoint(path: Path_, header: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write the state of a training as a sealed archive, in place of whatever `path` held.

    The header's JSON values say whose state it is. The state has JSON values, NaN among them,
    arrays and bytes, in dicts and lists.
    """
    arrays: dict[str, NDArray[Any]] = {}

    def packed(value: Any) -> Any:
        """Return what stands in the JSON text for a value that JSON lacks."""
        if isinstance(value, np.generic):
            return value.item()
        name = f"array{len(arrays)}"
        arrays[name] = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
        return {_ARRAY: name}

    text = json.dumps(state, default=packed)
    arrays[_STATE] = np.frombuffer(text.encode(), np.uint8)
    write_archive(path, CHECKPOINT, header, arrays)


def load_checkpoint(path: Path_) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the header and the state of a checkpoint; bytes come back as arrays of uint8."""
    header, arrays = read_archive(path, CHECKPOINT, CHECKPOINT_REMEDY)

    def unpacked(value: dict[str, Any]) -> Any:
        return arrays[value[_ARRAY]] if value.keys() == {_ARRAY} else value

    with fitting(path):
        return header, dict(json.loads(arrays[_STATE].tobytes(), object_hook=unpacked))


def fitting(path: Path_) -> AbstractContextManager[None]:
    """Turn what content of another shape or type raises into a DataError that names the file."""
    remedy = f"Another version of nembp wrote it, or something else did. {CHECKPOINT_REMEDY}"
    return parsing(f"{os.fspath(path)}: does not fit its own settings", remedy)


def check_state(found: Any, pattern: Any, name: str = "state") -> None:
    """Raise a TypeError unless a state is built like another: that of the training's beginning.

    What that has as None, or empty, may hold anything, but rows hold numbers.
    """
    known: dict[Any, Any] = {tuple: list, bytes: np.ndarray}
    kind, number = known.get(type(pattern), type(pattern)), isinstance(pattern, int | float)
    right = pattern is None or isinstance(found, (int, float) if number else kind)
    inner = list[tuple[Any, Any, Any]]()
    if right and number:
        right = not found < 0
    elif right and isinstance(pattern, np.ndarray):
        right = (found.shape, found.dtype) == (pattern.shape, pattern.dtype)
    elif right and kind is dict:
        right = pattern.keys() <= found.keys()
        inner = [(found[key], pattern[key], key) for key in pattern if right]
    elif right and kind is list and pattern:
        right = len(found) == len(pattern)
        inner = [(*pair, "row") for pair in zip(found, pattern, strict=False)]
    elif right and kind is list:
        values = chain(*(row.values() for row in found if isinstance(row, dict)))
        right = all(isinstance(value, int | float) for value in values)
    if not right:
        raise TypeError(f"{name} is {found!r:.40}")
    for value, like, key in inner:
        check_state(value, like, f"{name}/{key}")


SAVING_SHARE = 0.005  # of the time that saving on the way takes at most; start and end are apart
EVERY = 60.0  # seconds between checkpoints within an epoch, at least


class Checkpoints:
    """Writes the state of a training as it goes, with a header as of `save_checkpoint`; a context.

    In it SIGINT, SIGTERM and SIGHUP, where they raise KeyboardInterrupt, are counted in `signals`:
    the training stops after the step, with its state written; a third one ends the process. Within
    an epoch it writes every `every` seconds; by default every `EVERY`, and as seldom as
    `SAVING_SHARE` asks.
    """

    def __init__(
        self,
        path: Path_,
        header: Mapping[str, Any],
        state: Callable[[], Mapping[str, Any]],
        every: float | None = None,
    ) -> None:
        self.path, self.header, self.state, self.every = path, header, state, every
        self.signals = 0
        self._before: dict[int, Any] = {}
        self._row_due, self._step_due = -math.inf, math.inf  # times of the next checkpoint

    def __enter__(self) -> Checkpoints:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
                number = getattr(signal, name, None)
                if number and signal.getsignal(number) is signal.default_int_handler:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: object) -> None:
        self.signals += 1
        if self.signals > 2:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def after_step(self) -> None:
        """Write the state if it is time; KeyboardInterrupt if a signal came."""
        if self.signals or time.perf_counter() >= self._step_due:
            self.write()
            if self.signals:
                raise KeyboardInterrupt

    @property
    def are_due(self) -> bool:
        """Whether it is time to save after an epoch."""
        return time.perf_counter() >= self._row_due

    def write(self, began: float | None = None) -> None:
        """Write the state of now, and set the times of the next ones by what saving costs."""
        began = time.perf_counter() if began is None else began
        save_checkpoint(self.path, self.header, self.state())
        now = time.perf_counter()
        self._row_due = now + (now - began) / SAVING_SHARE
        self._step_due = now + self.every if self.every else max(self._row_due, now + EVERY)


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say in words where two environments differ; "" if they do not."""
    keys = [key for key in now if then.get(key) != now[key]]
    return "; ".join(f"{key} {then.get(key)} is now {now[key]}" for key in keys)
