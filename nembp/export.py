"""ONNX files of a trained network: each direction as a graph over the same weights.

A direction is a chain of its layers' maps, biases, normalizations (by running statistics) and
activations. The scaling of inputs and targets and the names of classes are in the graph too.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from nembp.checkpoints import Model, as_model
from nembp.datasets import Scaling
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import Multinomial
from nembp.engine.linear import AveragePooling, Dense, LinearMap, Reshape, Transposed
from nembp.engine.network import Network
from nembp.errors import ArchitectureError, NembpError
from nembp.files import write_atomically

OPSET, IR_VERSION = 17, 8  # of 2022, which runtimes of today all read
ACTIVATIONS = {"relu": "Relu", "leaky-relu": "LeakyRelu", "tanh": "Tanh", "logistic": "Sigmoid"}
OUTPUTS = {
    "multinomial": "Softmax",
    "gaussian": "Identity",
    "bernoulli": "Sigmoid",
    "bipolar": "Tanh",
}


def save_onnx(model: Any, path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write both directions of a network as ONNX graphs, for onnxruntime and others.

    Parameters
    ----------
    model : Network, Model, History or estimator
        A model, such as a run's or an estimator's, takes and gives raw values; a network its own
        units.
    path : path
        Of the graph ``forward``; the graph ``backward`` goes beside it, as ``name.backward.onnx``.

    Returns
    -------
    forward, backward : Path
        The files. ``forward`` has the input ``x`` (n, *shape), in float64 for a model, and the
        output ``y``, with ``label`` for classes; ``backward`` has the input ``y`` (n, outputs) and
        the output ``x``. Between them numbers are float32.

    Raises
    ------
    ArchitectureError
        If a part of the network is none that ONNX has.
    NembpError
        If the package onnx is missing.
    """
    try:
        import onnx
    except ImportError as error:
        raise NembpError("ONNX files need the package onnx: pip install 'nembp[onnx]'") from error
    model = model if isinstance(model, Network) else as_model(model)
    path = Path(path)
    paths = path, path.with_name(f"{path.stem}.backward{path.suffix}")
    for direction, file in zip(("forward", "backward"), paths, strict=True):
        proto = _Graph(onnx, model, direction).proto()
        onnx.checker.check_model(proto, full_check=True)
        write_atomically(file, proto.SerializeToString())
    return paths


class _Graph:
    """The graph of one direction, as it is built."""

    def __init__(self, onnx: Any, model: Network | Model, direction: str) -> None:
        self.onnx, self.direction = onnx, direction
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.model = model if isinstance(model, Model) else None
        net: Network = model.net if isinstance(model, Model) else model
        if net.direction == "backward":
            net = net.reversed
        forward = direction == "forward"
        self.net = net if forward else net.reversed
        shape: tuple[int, ...] = self.model.shape if self.model else (net.inputs,)
        x_scaling = self.model.x_scaling if self.model else None
        y_scaling = self.model.y_scaling if self.model and not self.model.classes else None
        names = ("x", "y") if forward else ("y", "x")
        ends = ((shape, x_scaling), ((net.outputs,), y_scaling))
        (first, before), (last, after) = ends if forward else ends[::-1]
        self.inputs = [self._value(names[0], before, first)]
        self.outputs = [self._value(names[1], after, last)]
        z = self._layers(self._scaled(names[0], before, self.net.inputs))
        self._raw(z, after, last, names[1])
        if forward and self.model and self.model.classes:
            self._label(names[1])

    def add(self, op: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        """Append a node, and return the name of its output."""
        name = out or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(op, inputs, [name], **attributes))
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"constant_{len(self.constants)}"
        array = np.asarray(value, dtype)
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def parameter(self, array: Any) -> np.ndarray[Any, Any]:
        return np.asarray(self.net.backend.to_numpy(array))

    def reshape(self, value: str, shape: tuple[int, ...]) -> str:
        return self.add("Reshape", value, self.constant((-1, *shape), np.int64))

    # -- the ends ---------------------------------------------------------------------------------
    def _value(self, name: str, scaling: Scaling | None, shape: tuple[int, ...]) -> Any:
        kinds = self.onnx.TensorProto
        kind = kinds.FLOAT if scaling is None else kinds.DOUBLE
        return self.onnx.helper.make_tensor_value_info(name, kind, ["n", *shape])

    def _scaled(self, value: str, scaling: Scaling | None, size: int) -> str:
        """Add the way from raw values to the network's units, (raw − offset) · factor."""
        if scaling is not None:
            value = self.add("Sub", value, self.constant(scaling.offset, np.float64))
            value = self.add("Mul", value, self.constant(scaling.factor, np.float64))
            value = self.add("Cast", value, to=self.onnx.TensorProto.FLOAT)
        return self.reshape(value, (size,))

    def _raw(self, value: str, scaling: Scaling | None, shape: tuple[int, ...], name: str) -> None:
        """Add the way from the network's units to raw values, value / factor + offset."""
        value = self.reshape(value, shape)
        if scaling is None:
            self.add("Identity", value, out=name)
            return
        value = self.add("Cast", value, to=self.onnx.TensorProto.DOUBLE)
        value = self.add("Div", value, self.constant(scaling.factor, np.float64))
        self.add("Add", value, self.constant(scaling.offset, np.float64), out=name)

    def _label(self, y: str) -> None:
        """Add the output ``label``, the name of the most probable class."""
        assert self.model is not None
        names = self.onnx.helper.make_tensor(
            "classes", self.onnx.TensorProto.STRING, [len(self.model.classes)],
            [name.encode() for name in self.model.classes],
        )  # fmt: skip
        self.constants.append(names)
        self.add("Gather", "classes", self.add("ArgMax", y, axis=1, keepdims=0), out="label")
        kind = self.onnx.TensorProto.STRING
        self.outputs.append(self.onnx.helper.make_tensor_value_info("label", kind, ["n"]))

    # -- the layers -------------------------------------------------------------------------------
    def _layers(self, a: str) -> str:
        net = self.net
        for k, linear_map in enumerate(net.maps, start=1):
            layer = net.layers[k]
            a = self._contract(linear_map, a, self.parameter(net.weights[k - 1]))
            if layer.biases:
                bias, by_channel = self.parameter(net.biases[k]), layer.biases < layer.size
                a = self.reshape(a, (layer.size // layer.biases, layer.biases)) if by_channel else a
                if layer.normalization is not None:
                    running: Any = net.running[k]
                    mean, variance = map(self.parameter, running)
                    scale = self.parameter(net.gains[k])
                    scale = scale / np.sqrt(variance + layer.normalization.epsilon)
                    a = self.add("Mul", a, self.constant(scale))
                    bias = bias - mean * scale
                a = self.add("Add", a, self.constant(bias))
                a = self.reshape(a, (layer.size,)) if by_channel else a
            if layer.activation is not None and layer.activation.name != "identity":
                if layer.activation.name not in ACTIVATIONS:
                    raise ArchitectureError(
                        f"ONNX has no activation {layer.activation.name!r}; expected identity, "
                        f"{', '.join(ACTIVATIONS)}"
                    )
                slope = getattr(layer.activation, "slope", None)
                options: dict[str, Any] = {} if slope is None else {"alpha": float(slope)}
                a = self.add(ACTIVATIONS[layer.activation.name], a, **options)
        if net.likelihood.name not in OUTPUTS:
            raise ArchitectureError(
                f"ONNX export knows no likelihood {net.likelihood.name!r}; expected "
                f"{', '.join(OUTPUTS)}"
            )
        options = {"axis": 1} if isinstance(net.likelihood, Multinomial) else {}
        return self.add(OUTPUTS[net.likelihood.name], a, **options)

    def _contract(self, linear_map: LinearMap, a: str, W: Any, up: bool = True) -> str:
        """forward(a) of a linear map, or its adjoint."""
        if isinstance(linear_map, Transposed):
            return self._contract(linear_map.linear_map, a, W, not up)
        if isinstance(linear_map, Dense):
            return self.add("MatMul", a, self.constant(W if up else W.T))
        if isinstance(linear_map, Reshape):
            axes = linear_map.axes or tuple(range(len(linear_map.shape)))
            shape = linear_map.shape if up else linear_map.output_shape
            order = axes if up else tuple(np.argsort(axes).tolist())
            a = self.reshape(a, shape)
            a = self.add("Transpose", a, perm=[0, *(axis + 1 for axis in order)])
            return self.reshape(a, (linear_map.inputs,))
        if isinstance(linear_map, Convolution):
            kernel, padding = linear_map.kernel, linear_map.padding
            W = W.transpose(3, 2, 0, 1)  # as ONNX has them: out, in, height, width
            groups = 1
        elif isinstance(linear_map, AveragePooling):
            kernel, padding, groups = linear_map.window, (0, 0), linear_map.shape[2]
            W = np.full((groups, 1, *kernel), 1.0 / np.prod(kernel))
        else:
            raise ArchitectureError(f"ONNX export knows no linear map {linear_map!r:.80}")
        lower, upper = linear_map.shape, linear_map.output_shape
        options: dict[str, Any] = {
            "kernel_shape": kernel,
            "strides": linear_map.stride,
            "pads": (*padding, *padding),
            "group": groups,
        }
        if not up:  # rows and columns that the stride left over come back as zeros
            options["output_padding"] = [
                lower[k] - (upper[k] - 1) * linear_map.stride[k] - kernel[k] + 2 * padding[k]
                for k in (0, 1)
            ]
        a = self.add("Transpose", self.reshape(a, lower if up else upper), perm=[0, 3, 1, 2])
        a = self.add("Conv" if up else "ConvTranspose", a, self.constant(W), **options)
        a = self.add("Transpose", a, perm=[0, 2, 3, 1])
        return self.reshape(a, (linear_map.outputs if up else linear_map.inputs,))

    def proto(self) -> Any:
        helper = self.onnx.helper
        graph = helper.make_graph(
            self.nodes, self.direction, self.inputs, self.outputs, self.constants
        )
        opset = [helper.make_opsetid("", OPSET)]
        made = {"ir_version": IR_VERSION, "opset_imports": opset, "producer_name": "nembp"}
        return helper.make_model(graph, **made)
