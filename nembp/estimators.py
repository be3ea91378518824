"""scikit-learn estimators that train a network in both directions, in place of MLPClassifier.

`BidirectionalClassifier` and `BidirectionalRegressor` take the parameters of `MLPClassifier` and
`MLPRegressor` under their names and defaults, and have their attributes and methods. The network
also learns to draw inputs for labels: `predict_inputs`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import KW_ONLY, dataclass
from numbers import Integral, Real
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
from scipy import special
from sklearn import utils
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.utils import multiclass, validation
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if

from nembp import architecture
from nembp.arrays import Vector, array_model, check_weights, input_scaling
from nembp.checkpoints import Model
from nembp.datasets import Scaling, Split
from nembp.datasets.assemble import as_array, check_inputs
from nembp.datasets.reading import BatchReader
from nembp.datasets.scaling import check_range, chunks
from nembp.engine.activations import ACTIVATIONS, Activation
from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial
from nembp.engine.linear import Dense
from nembp.engine.network import dense_network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import SGD, Adam, Momentum, Optimizer
from nembp.engine.training import History, Trainer, set_input_bias
from nembp.errors import DivergenceError, NembpError

try:  # since scikit-learn 1.9
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """There are none to support."""

    def with_callbacks(method: Any) -> Any:
        """Return the method as it is."""
        return method


ROWS = 1024  # that a prediction computes at a time
FAR = 10.0  # standard deviations: samples of which the first ones said nothing
MADE_OF = ("hidden_layer_sizes", "layers", "image_shape", "activation", "standardize", "dtype")
OUTPUT_ACTIVATIONS = {"multinomial": "softmax", "bernoulli": "logistic", "gaussian": "identity"}
NOT_FINITE = (
    "Solver produced non-finite parameter weights. The input data may contain large values and "
    "need to be preprocessed."
)


class _Nesterov(Momentum):
    """v ← μ v + g, θ ← θ − η (g + μ v): Nesterov's momentum, as MLPClassifier has it."""

    kernel = None  # type: ignore[assignment]  # a GPU's kernel has the classical one

    def move(self, chunk: Any, eta: float, epsilon: float) -> None:
        (v,) = chunk.state
        v *= self.momentum
        v += chunk.g
        self.backend.xp.multiply(v, self.momentum, out=chunk.scratch)
        chunk.scratch += chunk.g
        chunk.scratch *= eta
        chunk.theta -= chunk.scratch


def _is_stochastic(estimator: Any) -> bool:
    """Say whether `partial_fit` is there, as in MLPClassifier; lbfgs is refused at `fit`."""
    return bool(estimator.solver != "lbfgs")


@dataclass(eq=False, repr=False)
class _Bidirectional(CallbackSupportMixin, BaseEstimator):  # type: ignore[misc]
    """What the classifier and the regressor share: the fields are their parameters."""

    hidden_layer_sizes: Any = (100,)
    activation: str | Activation = "relu"
    _: KW_ONLY
    solver: str = "adam"
    alpha: float = 0.0001
    batch_size: Any = "auto"
    learning_rate: str = "constant"
    learning_rate_init: float = 0.001
    power_t: float = 0.5
    max_iter: int = 200
    shuffle: bool = True
    random_state: Any = None
    tol: float = 1e-4
    verbose: bool | int = False
    warm_start: bool = False
    momentum: float = 0.9
    nesterovs_momentum: bool = True
    early_stopping: bool = False
    validation_fraction: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    n_iter_no_change: float = 10
    backward_weight: float | Literal["auto"] = "auto"
    noise: Noise | dict[str, Noise] | None = None
    layers: Any = None
    image_shape: Any = None
    standardize: bool = True
    device: str = "cpu"
    dtype: str = "float32"
    callbacks: Any = None

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **MLPClassifier._parameter_constraints,
        "activation": [StrOptions(set(ACTIVATIONS)), Activation],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "backward_weight": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "noise": [Noise, Mapping, None],
        "layers": [str, "array-like", None],
        "image_shape": ["array-like", None],
        "standardize": ["boolean"],
        "device": [str],
        "dtype": [StrOptions({"float32", "float64", "auto"})],
        "callbacks": ["array-like", None],
    }

    # what the two estimators say for themselves
    _encode: ClassVar[Callable[..., Vector]]  # labels 0..K−1 (n,), or numbers (n, outputs)
    _decode: ClassVar[Callable[..., Vector]]  # predictions, of the output in the targets' units

    # -- fit --------------------------------------------------------------------------------------
    @with_callbacks  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on samples and targets, from the start unless ``warm_start``.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (n, features)
            Sparse matrices are made dense.
        y : array_like, shape (n,) or (n, outputs)
            Labels or an indicator matrix of several labels; numbers for a regressor.
        sample_weight : array_like, shape (n,), optional
            Multiplies each sample's log-likelihoods, in both directions; 0 leaves a sample out.
            Normalized ``layers`` count each sample once.
        """
        return self._fit(X, y, sample_weight, incremental=False)

    def _fit(self, X: Any, y: Any, sample_weight: Any, incremental: bool) -> Self:
        self._validate_params()
        first = not hasattr(self, "network_") or not (self.warm_start or incremental)
        made = repr({name: getattr(self, name) for name in MADE_OF})
        made_of = made if first else self.__dict__["_made_of"]
        for wrong, message in (
            (self.solver == "lbfgs", "solver='lbfgs' needs the loss of all samples at each step; "
             "the two directions are trained by batches. Use 'adam' or 'sgd'"),
            (self.early_stopping and incremental,
             "partial_fit does not support early_stopping=True"),
            (not all(map(callable, self.callbacks or ())),
             f"callbacks must be functions, got {self.callbacks!r:.60}"),
            (made != made_of, f"training goes on with a network of {made_of}; for one of {made} "
             "call fit with warm_start=False"),
        ):  # fmt: skip
            if wrong:
                raise ValueError(message)
        data = {"X": X, "y": y, "metadata": None}
        options = {"multi_output": True, "y_numeric": not is_classifier(self), "reset": first}
        x, y = validation.validate_data(self, X, _dense(y), accept_sparse=True, **options)
        x = _numbers(x)
        if y.ndim == 2 and y.shape[1] == 1:
            y = utils.column_or_1d(y, warn=True)
        t = self._encode(y, first, incremental)
        weights: Vector | None = None
        if sample_weight is not None:
            data["metadata"] = {"sample_weight": sample_weight}
            weights = validation._check_sample_weight(sample_weight, x)
        if getattr(self, "class_weight", None) is not None:
            by_class = utils.compute_sample_weight(self.class_weight, y)
            weights = by_class if weights is None else by_class * weights
        if weights is not None:
            weights = check_weights(weights, len(x))
            x, t, weights = (each[weights > 0] for each in (x, t, weights))

        generator = utils.check_random_state(self.random_state)
        seed, held = int(generator.randint(2**31 - 1)), None
        if self.early_stopping:
            kept, out = self._held_out(t, generator)
            w = np.ones(len(x)) if weights is None else weights
            held = x[out], self._decode(_one_hot(t[out], self._outputs)), w[out]
            x, t, weights = x[kept], t[kept], None if weights is None else w[kept]
        if first:
            self._made_of = made
            self._start(x, t, weights, generator)
        x = self._x_scaling.apply(x, self.network_.dtype)
        mean = x.mean(0, dtype=np.float64) if weights is None else weights @ x / weights.sum()
        if first:
            set_input_bias(self.network_, mean)
        elif np.abs(mean).max() > FAR and self.standardize:
            warnings.warn(
                f"the mean of these samples is {np.abs(mean).max():.3g} standard deviations from "
                "that of the first samples, which set the scaling of the columns; begin with "
                "samples of every kind, or scale the columns and give standardize=False",
                stacklevel=3,
            )
        if self.backward_weight != "auto":
            self.backward_weight_ = float(self.backward_weight)
        elif first or not incremental:  # 1/v, where v is the sum of the columns' variances
            w = np.full(len(x), 1.0 / len(x)) if weights is None else weights / weights.sum()
            parts = [float(w[k] @ np.square(x[k] - mean).sum(axis=1)) for k in chunks(x)]
            self.backward_weight_ = 1.0 / (sum(parts) or x.shape[1])
        if t.ndim == 2:
            t = self._y_scaling.apply(t, np.float64)
        self._train(x, t, weights, held, seed + self.t_, incremental, data)
        return self

    def _held_out(self, t: Vector, generator: Any) -> list[Vector]:
        """Return the samples to train on, and those to score after each epoch."""
        rows, share = np.arange(len(t)), self.validation_fraction
        counts = np.unique(t, return_counts=True)[1] if t.ndim == 1 else np.ones(1)
        by_class = counts.min() > 1 and len(counts) <= math.ceil(share * len(t))
        stratify = t if by_class else None
        parts: list[Vector] = train_test_split(
            rows, test_size=share, random_state=generator, stratify=stratify
        )
        if len(parts[1]) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of "
                "your dataset."
            )
        return parts

    def _start(self, x: Vector, t: Vector, weights: Vector | None, generator: Any) -> None:
        """Make a network, the scaling of its ends and all that a training counts."""
        self._x_scaling = self._y_scaling = Scaling()
        if self.standardize:
            try:
                self._x_scaling = input_scaling(x, Gaussian(), weights)
                if isinstance(self._likelihood, Gaussian):
                    self._y_scaling = input_scaling(t, Gaussian(), weights)
                check_range(x, self._x_scaling, "X")
            except NembpError as error:
                raise ValueError(f"{NOT_FINITE} {error}") from error
        own = self._dtype = "float32" if x.dtype == np.float32 else "float64"
        dtype, seed = own if self.dtype == "auto" else self.dtype, generator.randint(2**31 - 1)
        made: Any = {"activation": self.activation, "forward": self._likelihood}
        made |= {"device": self.device, "dtype": dtype, "seed": int(seed)}
        if self.layers is None:
            sizes = self.hidden_layer_sizes
            hidden: list[Any] = [sizes] if isinstance(sizes, Integral) else list(sizes)
            if not all(isinstance(size, int | np.integer) and size > 0 for size in hidden):
                raise ValueError(f"hidden_layer_sizes must be > 0, got {hidden}. Expected integers")
            self.network_ = net = dense_network([x.shape[1], *hidden, self._outputs], **made)
            factor = 2.0 if self.activation == "logistic" else 6.0
            for W, bias in zip(net.weights, net.biases[1:], strict=True):
                bound = math.sqrt(factor / sum(W.shape))  # as MLPClassifier draws them
                for each in (W, cast(Any, bias)):
                    drawn = generator.uniform(-bound, bound, each.shape)
                    each[...] = net.backend.asarray(drawn, net.dtype)
        else:
            self.network_ = architecture.network(self._shape(), self.layers, self._outputs, **made)
        self.history_, self.loss_curve_ = History(), list[float]()
        self.n_iter_ = self.t_ = self._no_improvement_count = 0
        self.n_outputs_, self.n_layers_ = self._outputs, len(self.network_.layers)
        self.out_activation_ = OUTPUT_ACTIVATIONS[self._likelihood.name]
        self._optimizer: SimpleNamespace | None = None  # what it keeps between trainings
        self.best_loss_: float | None = None if self.early_stopping else math.inf
        self.validation_scores_: list[float] | None = [] if self.early_stopping else None
        self.best_validation_score_ = -math.inf if self.early_stopping else None
        self._best: Any = None

    def _shape(self) -> tuple[int, ...]:
        """Return the shape of a sample."""
        n = self.n_features_in_
        shape = (n,) if self.image_shape is None else tuple(self.image_shape)
        if not all(isinstance(size, Integral) for size in shape) or math.prod(shape) != n:
            raise ValueError(f"image_shape is {shape}, but X has {n} features")
        return tuple(map(int, shape))

    def _new_optimizer(self) -> Optimizer:
        rate = self.learning_rate_init
        if self.solver == "adam":
            return Adam(rate, beta1=self.beta_1, beta2=self.beta_2, epsilon=self.epsilon)
        if self.momentum == 0:
            return SGD(rate)
        return (_Nesterov if self.nesterovs_momentum else Momentum)(rate, momentum=self.momentum)

    def _train(
        self, x: Vector, t: Vector, weights: Vector | None, held: tuple[Vector, ...] | None,
        seed: int, incremental: bool, data: dict[str, Any],
    ) -> None:  # fmt: skip
        net, n, kept = self.network_, len(x), self._optimizer
        if self.backward_weight_:
            net.reversed.likelihood = Gaussian(1.0 / self.backward_weight_)
        if self.batch_size != "auto" and self.batch_size > n:
            warnings.warn(
                "Got `batch_size` larger than sample size. It is going to be clipped", stacklevel=4
            )
        batch_size = min(200 if self.batch_size == "auto" else self.batch_size, n)
        total = float(n) if weights is None else float(weights.sum())
        optimizer, l2 = self._new_optimizer(), self.alpha * n / total
        self.n_iter_, converged = 0, False
        task: Any = None  # of scikit-learn's own callbacks
        epoch: Any = None
        if not incremental and hasattr(self, "_init_callback_context"):
            task = self._init_callback_context(max_subtasks=self.max_iter)
            task.call_on_fit_task_begin(estimator=self, **data)
            epoch = task.subcontext("epoch").call_on_fit_task_begin(estimator=self, **data)

        def after_epoch(row: dict[str, float]) -> bool:
            nonlocal converged, epoch
            converged = self._end_epoch(row, optimizer, n, l2 / batch_size, held)
            stop = any([converged, *(callback(row) for callback in self.callbacks or ())])
            if task is not None:
                end = {"reconstruction_attributes": lambda: {"network_": deepcopy(net)}}
                stop |= epoch.call_on_fit_task_end(estimator=self, **end, **data)
                if not stop and self.n_iter_ < self.max_iter:
                    epoch = task.subcontext("epoch").call_on_fit_task_begin(estimator=self, **data)
            return stop

        trainer = Trainer(
            net,
            BatchReader(Split(x, t), Scaling(), Scaling(), net.outputs, net.backend, net.dtype),
            epochs=1 if incremental else self.max_iter, batch_size=batch_size, optimizer=optimizer,
            noise={"forward": self.noise} if isinstance(self.noise, Noise) else self.noise,
            sample_weight=None if weights is None else weights * (n / total), shuffle=self.shuffle,
            schedule="constant", backward=self.backward_weight_ > 0, seed=seed, l2=l2,
            callbacks=[after_epoch],
        )  # fmt: skip
        if kept is not None:  # a warm start goes on where the last one ended
            optimizer.steps = kept.steps
            if self.learning_rate != "constant":
                optimizer.learning_rate = kept.learning_rate
            for slot in kept.vectors.keys() & optimizer.state.keys():
                optimizer.state[slot][...] = net.backend.asarray(kept.vectors[slot], net.dtype)
        try:
            trainer.run()
        except DivergenceError as error:
            if held is None or self.validation_scores_ is None:
                raise ValueError(f"{NOT_FINITE} {error}") from error
            self.validation_scores_.append(math.nan)
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=4)
        self.history_.epochs += trainer.history.epochs
        self.history_.best_epoch = len(self.history_.epochs)
        vectors = {slot: net.backend.to_numpy(value) for slot, value in optimizer.state.items()}
        numbers = {"steps": optimizer.steps, "learning_rate": optimizer.learning_rate}
        self._optimizer = SimpleNamespace(**numbers, vectors=vectors)
        if held is not None and self._best is not None:
            net.restore(self._best)
        if task is not None:
            task.call_on_fit_task_end(estimator=self, reconstruction_attributes={}, **data)
        if self.n_iter_ == self.max_iter and not converged and not incremental:
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the "
                "optimization hasn't converged yet.",
                ConvergenceWarning,
                stacklevel=4,
            )

    def _end_epoch(
        self, row: dict[str, float], optimizer: Optimizer, n: int, l2: float, held: Any
    ) -> bool:
        """Record the epoch's loss, that of MLPClassifier; say whether the training converged."""
        net = self.network_
        self.n_iter_ += 1
        self.t_ += n
        W = net.backend.to_numpy(net.parameters)[: net.weight_count].astype(np.float64)
        loss = row["train/forward/nll"] - net.likelihood.log_normalizer(net.outputs)
        loss /= net.outputs if isinstance(net.likelihood, Gaussian) else 1
        self.loss_ = loss + 0.5 * l2 * float(W @ W)
        self.loss_curve_.append(self.loss_)
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")
        if held is None:
            best = math.inf if self.best_loss_ is None else self.best_loss_
            worse = self.loss_ > best - self.tol
            self.best_loss_ = min(best, self.loss_)
        else:
            worse = self._validate(*held)
        self._no_improvement_count = self._no_improvement_count + 1 if worse else 0
        if self.solver == "sgd" and self.learning_rate == "invscaling":
            optimizer.learning_rate = self.learning_rate_init / (self.t_ + 1) ** self.power_t
        if self._no_improvement_count <= self.n_iter_no_change:
            return False
        adaptive = self.solver == "sgd" and self.learning_rate == "adaptive"
        if not adaptive or optimizer.learning_rate <= 1e-6:
            return True
        optimizer.learning_rate /= 5.0
        self._no_improvement_count = 0
        return False

    def _validate(self, x: Vector, y: Vector, weights: Vector) -> bool:
        """Score the held-out samples, keep the best network; say whether it gained < tol."""
        predicted, score = self._decode(self._output(x)), math.nan
        if predicted.dtype.kind != "f" or np.isfinite(predicted).all():
            scored = accuracy_score if is_classifier(self) else r2_score
            score = float(scored(y, predicted, sample_weight=weights))
        if self.verbose:
            print(f"Validation score: {score:.6f}")
        best = -math.inf if self.best_validation_score_ is None else self.best_validation_score_
        self.validation_scores_ = [*(self.validation_scores_ or ()), score]
        if score > best:
            self.best_validation_score_, self._best = score, self.network_.snapshot()
        return score < best + self.tol

    # -- predict ----------------------------------------------------------------------------------
    def _answer(self, X: Any, log: bool = False) -> Vector:
        """Return `_output` of what a user gave; a DataError if its values are too large."""
        validation.check_is_fitted(self)
        x = _numbers(validation.validate_data(self, X, accept_sparse=True, reset=False))
        with np.errstate(over="ignore", invalid="ignore"):
            output = self._output(x, log)
        if not np.isfinite(output).all():
            check_range(x, self._x_scaling, "X")
        return output

    def _output(self, x: Vector, log: bool = False) -> Vector:
        """Return the network's output, or its logarithm, in the targets' units."""
        net, parts = self.network_, []
        for start in range(0, len(x), ROWS):
            scaled = self._x_scaling.apply(x[start : start + ROWS], net.dtype)
            parts.append(net.backend.to_numpy(net.readout(scaled).z))
        z = np.concatenate(parts).astype(np.float32 if x.dtype == np.float32 else np.float64)
        if isinstance(net.likelihood, Multinomial):
            return np.asarray((special.log_softmax if log else special.softmax)(z, axis=1))
        if isinstance(net.likelihood, Bernoulli):
            return np.asarray((special.log_expit if log else special.expit)(z))
        return self._y_scaling.invert(z).astype(z.dtype)

    def predict(self, X: Any) -> Vector:
        """Return the class of each sample, or its targets, shape (n,) or (n, outputs)."""
        return self._decode(self._answer(X))

    def predict_inputs(self, y: Any) -> Vector:
        """Return the inputs that the network draws for labels or targets, shape (n, features).

        y is as of `fit`, the columns are those of X in its units. The backward direction is trained
        to give the mean of the inputs that have a target: for a label it draws the centroid of its
        class, which is no inverse of `predict`.
        """
        validation.check_is_fitted(self)
        if self.backward_weight_ == 0:
            raise ValueError("backward_weight is 0, so that the network learned no backward way")
        y = utils.check_array(_dense(y), ensure_2d=False, dtype=None, input_name="y")
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        t = _one_hot(self._encode(y, first=False, incremental=True), self._outputs)
        return self.to_model().predict_inputs(t).reshape(len(t), -1)

    def to_model(self) -> Model:
        """Return what was trained as a `Model`, for `nembp.save`, `save_onnx` and the commands."""
        validation.check_is_fitted(self)
        classes = self.classes_ if isinstance(self._likelihood, Multinomial) else ()
        columns = [str(name) for name in getattr(self, "feature_names_in_", ())]
        scalings = self._x_scaling, self._y_scaling
        return array_model(self.network_, self._shape(), classes, *scalings, columns)

    # -- parameters, as MLPClassifier shows them --------------------------------------------------
    @property
    def coefs_(self) -> list[Vector]:
        """Weights of each layer, copies, that take X in its own units to the output in its own."""
        return self._in_units()[0]

    @property
    def intercepts_(self) -> list[Vector]:
        """Forward biases of each layer, copies; see `coefs_`."""
        return self._in_units()[1]

    def _in_units(self) -> tuple[list[Vector], list[Vector]]:
        """Return weights and biases with the scaling of dense ends in them, in X's precision."""
        if not hasattr(self, "network_"):
            raise AttributeError(f"this {type(self).__name__} is not fitted yet")
        net, parts = self.network_, (self.network_.weights, self.network_.biases[1:])
        W, b = ([np.array(net.backend.to_numpy(w), np.float64) for w in part] for part in parts)
        if isinstance(net.maps[0], Dense):
            factor = np.broadcast_to(self._x_scaling.factor, (net.inputs,))[:, np.newaxis]
            offset = np.broadcast_to(self._x_scaling.offset, (net.inputs,))
            W[0] *= factor
            b[0] -= offset @ W[0]
        if isinstance(net.maps[-1], Dense):
            W[-1] /= self._y_scaling.factor
            b[-1] = self._y_scaling.invert(b[-1])
        return [each.astype(self._dtype) for each in W], [each.astype(self._dtype) for each in b]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


@dataclass(eq=False, repr=False)
class BidirectionalClassifier(ClassifierMixin, _Bidirectional):  # type: ignore[misc]
    """A classifier that also learns to draw the inputs of its classes.

    One network is trained in both directions over the same weights (bidirectional
    backpropagation): from inputs to labels, and from labels to inputs. Parameters that are not
    listed have the meaning that they have for `sklearn.neural_network.MLPClassifier`.

    Parameters
    ----------
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, learning_rate_init, \
power_t, max_iter, shuffle, random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, \
early_stopping, validation_fraction, beta_1, beta_2, epsilon, n_iter_no_change
        As of `MLPClassifier`; ``solver`` is "adam" or "sgd".
    backward_weight : float or "auto", default "auto"
        Weight of log p(x | y) against log p(y | x), the precision 1/v of a Gaussian; 0 trains one
        direction. "auto" takes for v the variance of the scaled columns, summed, so that the
        columns together weigh as one target does; `partial_fit` keeps that of its first samples;
        more draws the classes sharper, and may cost accuracy (``nembp bench --suite estimators``).
        The fitted `backward_weight_` is what was used.
    noise : Noise or dict of Noise, optional
        NEM noise on the labels, or by place as of `nembp.train`; that on the backward direction
        acts where ``backward_weight`` is not 0.
    layers, image_shape : str, tuple of int, optional
        Hidden layers in the language of ``--layers``, such as ``"conv32x4s2,pool2,256"``, in the
        place of ``hidden_layer_sizes``; (height, width, channels) of the images whose pixels are
        the columns of X.
    standardize : bool, default True
        Give each column mean 0 and standard deviation 1, of the samples that the first fit or
        `partial_fit` sees; 8-bit images go to [0, 1]. `coefs_` and `intercepts_` have it in them.
    device, dtype : str, default "cpu", "float32"
        Where to compute ("cpu", "gpu" or "auto"), and the precision of the parameters ("float32",
        "float64", or that of X: "auto", as in `MLPClassifier`).
    callbacks : sequence of callable, optional
        Called with each epoch's row of scores; one that returns True ends the training.
        scikit-learn's own callbacks (since 1.9) are given to `set_callbacks`; they see the epochs
        of `fit`, and the estimator as it is after each.
    class_weight : dict, "balanced" or None
        Weights of the classes, which multiply ``sample_weight``.

    Attributes
    ----------
    classes_ : ndarray
        Labels, sorted.
    network_, history_ : Network, History
        What was trained (``network_.reversed`` is the other direction), and scores of each epoch.
    class_prototypes_ : ndarray, shape (classes, features)
        What the backward direction draws for each class: its centroid, in the units of X.
    loss_, best_loss_, loss_curve_, validation_scores_, best_validation_score_, n_iter_, t_, \
coefs_, intercepts_, n_features_in_, feature_names_in_, n_layers_, n_outputs_, out_activation_
        As of `MLPClassifier`; two classes have two outputs with a softmax.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = BidirectionalClassifier(learning_rate_init=0.01, random_state=0).fit(X, y)
    >>> classifier.score(X, y) > 0.95, classifier.predict_inputs([2]).shape
    (True, (1, 4))
    """

    class_weight: Any = None

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **_Bidirectional._parameter_constraints,
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
    }

    def _encode(self, y: Vector, first: bool, incremental: bool) -> Vector:
        multiclass.check_classification_targets(y)
        several = y.ndim == 2
        if several and multiclass.type_of_target(y) != "multilabel-indicator":
            raise ValueError(
                "Multioutput target data is not supported: give one label per sample, or an "
                "indicator matrix of 0 and 1"
            )
        found = np.arange(y.shape[1]) if several else multiclass.unique_labels(y)
        if first and not incremental:
            self.classes_ = found
        if first:
            self._outputs = len(self.classes_)
            self._likelihood = Bernoulli() if several else Multinomial()
        shape = (len(y), self._outputs)[: 1 + isinstance(self._likelihood, Bernoulli)]
        if y.shape != shape:
            raise ValueError(f"y has shape {y.shape}; expected {shape}, as of the first fit")
        if incremental and not several and len(np.setdiff1d(found, self.classes_)):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. "
                f"'y' has {found}."
            )
        if not incremental and not np.array_equal(found, self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous "
                f"call to fit. Previously got {self.classes_}, `y` has {found}"
            )
        if several:
            return y.astype(np.float64)
        return np.searchsorted(self.classes_, y).astype(np.int64)

    def _decode(self, output: Vector) -> Vector:
        if isinstance(self._likelihood, Bernoulli):
            return (output > 0.5).astype(np.int64)
        labels: Vector = self.classes_[output.argmax(axis=1)]
        return labels

    @available_if(_is_stochastic)  # type: ignore[untyped-decorator]
    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None
    ) -> BidirectionalClassifier:
        """Train one epoch on these samples, from where the training stands.

        Parameters
        ----------
        X, y, sample_weight
            As of `fit`. The first call sets the scaling of the columns, which cannot change once
            there are weights: begin with samples of every kind, or give ``standardize=False``.
        classes : array_like, optional
            All labels there will be; needed at the first call.
        """
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' needs all samples at once; give partial_fit a dict, as "
                "compute_class_weight('balanced', classes=classes, y=y) says"
            )
        multiclass._check_partial_fit_first_call(self, classes)
        return self._fit(X, y, sample_weight, incremental=True)

    def predict_proba(self, X: Any) -> Vector:
        """Return the probability of each class, shape (n, classes), in the order of `classes_`."""
        return self._answer(X)

    def predict_log_proba(self, X: Any) -> Vector:
        """Return the logarithm of `predict_proba`, finite where that is rounded to 0."""
        return self._answer(X, log=True)

    @property
    def class_prototypes_(self) -> Vector:
        """What the backward direction draws for each class, in the units of X."""
        if not hasattr(self, "network_") or self.backward_weight_ == 0:
            raise AttributeError("class_prototypes_ needs a fit with a backward_weight > 0")
        several = isinstance(self._likelihood, Bernoulli)
        return self.predict_inputs(np.eye(self._outputs) if several else self.classes_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


@dataclass(eq=False, repr=False)
class BidirectionalRegressor(RegressorMixin, _Bidirectional):  # type: ignore[misc]
    """A regressor that also learns the mean inputs of its targets.

    As `BidirectionalClassifier`, with the parameters of `sklearn.neural_network.MLPRegressor`
    (squared error; no Poisson loss). Targets are standardized too, unless ``standardize`` is
    False; `loss_` is half the mean squared error of the standardized targets.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> regressor = BidirectionalRegressor(random_state=0, learning_rate_init=0.01).fit(X, y)
    >>> regressor.score(X, y) > 0.5, regressor.predict_inputs([100.0, 200.0]).shape
    (True, (2, 10))
    """

    def _encode(self, y: Vector, first: bool, incremental: bool) -> Vector:
        t = as_array(y, "y").reshape(len(y), -1).astype(np.float64)
        validation.assert_all_finite(t, input_name="y")
        if first:
            self._outputs, self._likelihood = t.shape[1], Gaussian()
        elif t.shape[1] != self._outputs:
            raise ValueError(f"y has {t.shape[1]} outputs, but fit saw {self._outputs}")
        return t

    def _decode(self, output: Vector) -> Vector:
        return output[:, 0] if output.shape[1] == 1 else output

    @available_if(_is_stochastic)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> BidirectionalRegressor:
        """Train one epoch on these samples, from where the training stands.

        The first call sets the scaling of columns and targets: begin with samples of every kind,
        or give ``standardize=False``.
        """
        return self._fit(X, y, sample_weight, incremental=True)


def _dense(value: Any) -> Any:
    """Return a sparse matrix or a CuPy array as a NumPy array; others as they are."""
    if hasattr(value, "toarray"):
        return value.toarray()
    on_device = hasattr(value, "__cuda_array_interface__") and hasattr(value, "get")
    return value.get() if on_device else value


def _numbers(x: Any) -> Vector:
    """Return what scikit-learn let through as dense numbers: a DataError for dates and text."""
    x = _dense(x)
    return x if x.dtype.kind in "biuf" else check_inputs(x)


def _one_hot(t: Vector, outputs: int) -> Vector:
    """Return labels as one-hot rows, and numbers as they are."""
    return np.eye(outputs)[t] if t.ndim == 1 else t
