"""ONNX files of a trained network: each direction as a graph over the same weights.

A direction is a chain of its layers' maps, biases, normalizations (by running statistics) and
activations. The scaling of inputs and targets and the names of classes are in the graph too.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from nembp.checkpoints import as_model
from nembp.datasets import Scaling
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import Multinomial
from nembp.engine.linear import AveragePooling, Dense, LinearMap, Reshape, Transposed
from nembp.engine.network import Network
from nembp.errors import ArchitectureError, NembpError
from nembp.files import write_atomically

OPSET, IR_VERSION = 17, 8  # of 2022, which runtimes of today all read
ACTIVATIONS = {"identity": "Identity", "relu": "Relu", "leaky-relu": "LeakyRelu", "tanh": "Tanh",
               "logistic": "Sigmoid"}  # fmt: skip
OUTPUTS = {"multinomial": "Softmax", "gaussian": "Identity", "bernoulli": "Sigmoid",
           "bipolar": "Tanh"}  # fmt: skip
End = tuple[str, tuple[int, ...], Scaling | None]  # its name, shape, and scaling to raw values


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
    ArchitectureError, NembpError
        If a part of the network is none that ONNX has; if the package onnx is missing.
    """
    try:
        import onnx
    except ImportError as error:
        raise NembpError("ONNX files need the package onnx: pip install 'nembp[onnx]'") from error
    if isinstance(model, Network):
        net: Network = model.reversed if model.direction == "backward" else model
        x: End = ("x", (net.inputs,), None)
        y: End = ("y", (net.outputs,), None)
        classes: tuple[str, ...] = ()
    else:
        model = as_model(model)
        net, classes = model.net, model.classes
        x = "x", model.shape, model.x_scaling
        y = "y", (net.outputs,), None if classes else model.y_scaling
    path = Path(path)
    paths = path, path.with_name(f"{path.stem}.backward{path.suffix}")
    protos = (
        _Graph(onnx, net).proto("forward", x, y, classes),
        _Graph(onnx, net.reversed).proto("backward", y, x),
    )
    for proto, file in zip(protos, paths, strict=True):
        onnx.checker.check_model(proto, full_check=True)
        write_atomically(file, proto.SerializeToString())
    return paths


def _operator(table: dict[str, str], what: str, name: str) -> str:
    if name not in table:
        raise ArchitectureError(f"ONNX has no {what} {name!r}; expected {', '.join(table)}")
    return table[name]


class _Graph:
    """The graph of one direction, as it is built."""

    def __init__(self, onnx: Any, net: Network) -> None:
        self.onnx, self.net = onnx, net
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def proto(self, name: str, first: End, last: End, classes: tuple[str, ...] = ()) -> Any:
        """Return the model from one end to the other, with ``label``, the most probable class."""
        types, helper = self.onnx.TensorProto, self.onnx.helper
        (value, _, scaling), (y, shape, raw) = first, last
        if scaling is not None:  # to the network's units: (raw − offset) · factor
            value = self.add("Sub", value, self.constant(scaling.offset, np.float64))
            value = self.add("Mul", value, self.constant(scaling.factor, np.float64))
            value = self.add("Cast", value, to=types.FLOAT)
        value = self.reshape(self.layers(self.reshape(value, (self.net.inputs,))), shape)
        if raw is not None:  # and back: value / factor + offset
            value = self.add("Cast", value, to=types.DOUBLE)
            value = self.add("Div", value, self.constant(raw.factor, np.float64))
            value = self.add("Add", value, self.constant(raw.offset, np.float64))
        self.add("Identity", value, out=y)
        ends = [
            helper.make_tensor_value_info(
                end, types.FLOAT if units is None else types.DOUBLE, ["n", *size]
            )
            for end, size, units in (first, last)
        ]
        if classes:
            texts = [text.encode() for text in classes]
            names = helper.make_tensor("classes", types.STRING, [len(texts)], texts)
            self.constants.append(names)
            self.add("Gather", "classes", self.add("ArgMax", y, axis=1, keepdims=0), out="label")
            ends.append(helper.make_tensor_value_info("label", types.STRING, ["n"]))
        graph = helper.make_graph(self.nodes, name, ends[:1], ends[1:], self.constants)
        opset = [helper.make_opsetid("", OPSET)]
        made = {"ir_version": IR_VERSION, "opset_imports": opset, "producer_name": "nembp"}
        return helper.make_model(graph, **made)

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

    def reshape(self, value: str, shape: tuple[int, ...]) -> str:
        return self.add("Reshape", value, self.constant((-1, *shape), np.int64))

    def layers(self, a: str) -> str:
        """Add maps, biases, normalizations, activations, and the output's activation."""
        net = self.net

        def host(values: Any) -> Any:
            return np.asarray(net.backend.to_numpy(values))

        for k, (linear_map, layer) in enumerate(zip(net.maps, net.layers[1:], strict=True)):
            a = self.contract(linear_map, a, host(net.weights[k]))
            if layer.biases:
                bias, by_channel = host(net.biases[k + 1]), layer.biases < layer.size
                a = self.reshape(a, (layer.size // layer.biases, layer.biases)) if by_channel else a
                if layer.normalization is not None:
                    running: Any = net.running[k + 1]
                    mean, variance, gain = map(host, (*running, net.gains[k + 1]))
                    scale = gain / np.sqrt(variance + layer.normalization.epsilon)
                    a = self.add("Mul", a, self.constant(scale))
                    bias = bias - mean * scale
                a = self.add("Add", a, self.constant(bias))
                a = self.reshape(a, (layer.size,)) if by_channel else a
            if layer.activation is not None:
                slope = getattr(layer.activation, "slope", None)
                options: dict[str, Any] = {} if slope is None else {"alpha": float(slope)}
                a = self.add(
                    _operator(ACTIVATIONS, "activation", layer.activation.name), a, **options
                )
        options = {"axis": 1} if isinstance(net.likelihood, Multinomial) else {}
        return self.add(_operator(OUTPUTS, "likelihood", net.likelihood.name), a, **options)

    def contract(self, linear_map: LinearMap, a: str, W: Any, up: bool = True) -> str:
        """forward(a) of a linear map, or its adjoint."""
        if isinstance(linear_map, Transposed):
            return self.contract(linear_map.linear_map, a, W, not up)
        if isinstance(linear_map, Dense):
            return self.add("MatMul", a, self.constant(W if up else W.T))
        if isinstance(linear_map, Reshape):
            axes = linear_map.axes or tuple(range(len(linear_map.shape)))
            order = axes if up else tuple(np.argsort(axes).tolist())
            a = self.reshape(a, linear_map.shape if up else linear_map.output_shape)
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
        lower, upper, stride = linear_map.shape, linear_map.output_shape, linear_map.stride
        options: dict[str, Any] = {"kernel_shape": kernel, "strides": stride}
        options |= {"pads": (*padding, *padding), "group": groups}
        if not up:  # rows and columns that the stride left over come back as zeros
            options["output_padding"] = [
                lower[k] - (upper[k] - 1) * stride[k] - kernel[k] + 2 * padding[k] for k in (0, 1)
            ]
        a = self.add("Transpose", self.reshape(a, lower if up else upper), perm=[0, 3, 1, 2])
        a = self.add("Conv" if up else "ConvTranspose", a, self.constant(W), **options)
        a = self.add("Transpose", a, perm=[0, 2, 3, 1])
        return self.reshape(a, (linear_map.outputs if up else linear_map.inputs,))
