"""Names that the engine called before it handed whole operations to the backend."""

from __future__ import annotations

from typing import Any

Array = Any


class Legacy:
    """To go when nothing calls them any more."""

    sums_together = False
    has_implicit_products = False
    is_capturing = False
    convolution = "windows"
    forms: dict[Any, frozenset[str]]

    def lanes(self) -> int:
        return self.workers()  # type: ignore[attr-defined, no-any-return]

    @property
    def window_bytes(self) -> int:
        return self.column_bytes  # type: ignore[attr-defined, no-any-return]

    def add_bias_activate(self, activation: Any, z: Array, bias: Array) -> bool:
        return False

    def column_sums(self, x: Array, out: Array, ones: Array) -> None:
        self.sum_rows([(x, out)])  # type: ignore[attr-defined]

    def column_sums_together(self, sums: Any, tables: Any) -> None:
        self.sum_rows([(x, out) for x, out, _ in sums])  # type: ignore[attr-defined]

    def link_and_score(
        self, likelihood: Any, o: Any, t: Array, mass: Array = None, square: Array = None
    ) -> Array:
        return self.output_and_score(likelihood, o, t, mass, square)  # type: ignore[attr-defined]

    def write_error(
        self, likelihood: Any, o: Any, t: Array, out: Array, mass: Any, factor: float
    ) -> None:
        self.output_error(likelihood, o, t, out, mass, factor)  # type: ignore[attr-defined]

    def class_totals(
        self, members: Array, ones: Array, counts: Array, column: Array, squares: Array
    ) -> None:
        self.count_classes(members, counts, column, squares)  # type: ignore[attr-defined]

    def draw_and_screen(self, source: Any, o: Any, t: Array, std: Any) -> bool:
        return False

    def optimizer_kernel(self, optimizer: Any, parameters: Array, weights: int) -> Any:
        return None

    def lay_windows(self, linear_map: Any, images: Array, windows: Array) -> bool:
        return False

    def gather_windows(self, linear_map: Any, windows: Array, images: Array) -> bool:
        return False

    def implicit_spare(self, contraction: str, linear_map: Any, images: int) -> int:
        return 0

    def contract_implicitly(self, *args: Any) -> bool:
        return False


class LegacyCuda(Legacy):
    """The same on a CUDA device."""

    sums_together = True

    def add_bias_activate(self, activation: Any, z: Array, bias: Array) -> bool:
        if not self._fuses(activation, z, bias):
            return False
        self.activate(activation, z, bias, None)  # type: ignore[attr-defined]
        return True

    def _fuses(self, activation: Any, *arrays: Array) -> bool:
        known = activation is None or legacy_kernel(activation) or _kernel_of(activation)
        return bool(known) and self.kernels_of(*arrays) is not None  # type: ignore[attr-defined]

    def draw_and_screen(self, source: Any, o: Any, t: Array, std: Any) -> bool:
        noise, fallback = source.noise, []
        words = [noise.law]
        words += ["multiplicative"] * (noise.mode == "multiplicative")
        words += ["zero-sum"] * source.zero_sum + ["component"] * (source.screening == "component")
        words += ["reflect"] * (noise.rejected == "reflect")
        words += [noise.kind] * (noise.kind in ("blind", "anti"))
        fused = (
            source.screens_target
            and noise.kind in ("nem", "blind", "anti")
            and noise.law in ("gaussian", "uniform")
            and noise.draws == 1
            and source.screening != "expectation"
        )
        source.kernel = words if fused else None
        source.offer = lambda *args: fallback.append(args)
        self.screen(source, o, t, std)  # type: ignore[attr-defined]
        return not fallback

    def optimizer_kernel(self, optimizer: Any, parameters: Array, weights: int) -> Any:
        optimizer.vectors = parameters, optimizer.gradient, *optimizer.state.values()
        optimizer.weights = weights
        if (
            _kernel_of(optimizer) is None or self.kernels_of(*optimizer.vectors) is None  # type: ignore[attr-defined]
        ):
            return None
        return lambda device, numbers: self.optimizer_step(  # type: ignore[attr-defined]
            optimizer, numbers if device is None else device
        )

    def lay_windows(self, linear_map: Any, images: Array, windows: Array) -> bool:
        images = self.xp.reshape(images, (-1, *linear_map.shape))  # type: ignore[attr-defined]
        if self.kernels_of(images, windows) is None:  # type: ignore[attr-defined]
            return False
        self.im2col(images, linear_map.padding, linear_map.stride, None, windows)  # type: ignore[attr-defined]
        return True

    def gather_windows(self, linear_map: Any, windows: Array, images: Array) -> bool:
        images = self.xp.reshape(images, (-1, *linear_map.shape))  # type: ignore[attr-defined]
        if self.kernels_of(images, windows) is None:  # type: ignore[attr-defined]
            return False
        self.col2im(windows, linear_map.padding, linear_map.stride, None, images)  # type: ignore[attr-defined]
        return True


def _kernel_of(named: Any) -> Any:
    return vars(type(named)).get("kernel")


def legacy_kernel(named: Any) -> Any:
    """Return the kernel of a class of the engine that does not name it yet."""
    kind = type(named)
    return _KERNELS.get(kind.__name__) if kind.__module__.startswith("nembp.engine") else None


_KERNELS = {
    "Identity": "identity", "Logistic": "logistic", "Tanh": "tanh", "ReLU": "relu",
    "LeakyReLU": "leaky-relu", "Multinomial": "multinomial", "Gaussian": "gaussian",
    "Bernoulli": "bernoulli",
}  # fmt: skip
