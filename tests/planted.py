"""Bugs to plant in nembp, of the kinds that engines have had, and the law that catches each.

Each takes the place of a public function, and gets the original as its first argument. What a step,
a training or a game does inside is the engine's own business: a bug in it shows in what comes out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nembp import em
from nembp.adversarial import trainer
from nembp.adversarial.gradients import CycleBackpropagation
from nembp.adversarial.trainer import AdversarialTrainer
from nembp.em import binary, screening
from nembp.engine import convolution, linear, winograd
from nembp.engine.activations import LeakyReLU, Logistic, ReLU, Tanh
from nembp.engine.backprop import JointBackpropagation
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import Bernoulli, Gaussian, Likelihood, Multinomial, Score
from nembp.engine.linear import AveragePooling, Dense, Reshape, Transposed
from nembp.engine.network import Network, Parameters
from nembp.engine.noise import LayerNoise, NoiseSource
from nembp.engine.optimizers import SGD, Adam, Momentum, Optimizer
from nembp.engine.training import Trainer
from nembp.verification import laws


@dataclass(frozen=True)
class Bug:
    """What is planted where, and the law that must fail."""

    owner: Any
    name: str
    law: str
    body: Any

    def plant(self, monkeypatch: Any) -> None:
        """Put the bug in place."""
        original, body = inspect.getattr_static(self.owner, self.name), self.body
        if not callable(body):
            planted: Any = body
        elif isinstance(original, property):
            planted = property(lambda this: body(original.fget, this))
        else:
            planted = lambda *args, **options: body(original, *args, **options)  # noqa: E731
        monkeypatch.setattr(self.owner, self.name, planted)


BUGS: dict[str, Bug] = {}


def bug(*planted: tuple[Any, str, str]) -> Callable[..., Any]:
    """Plant the decorated function in the name of an owner, where a law must find it."""

    def register(body: Callable[..., Any]) -> Callable[..., Any]:
        for owner, name, law in planted:
            where = f"{owner.__name__.rpartition('.')[2]}.{name}"
            BUGS[f"{body.__name__}: {where} breaks {law}"] = Bug(owner, name, law, body)
        return body

    return register


# -- what is off by a factor -----------------------------------------------------------------------
OFF = "a_thousandth_off"
for _name, _what, _factor, *_where in (
    (OFF, -1, 1.001, Dense, "forward", "linear.definition"),
    (OFF, -1, 1.001, Dense, "weight_gradient", "linear.trilinear"),
    (OFF, -1, 1.001, Dense, "weight_gradient", "gradient.complex-steps"),
    (OFF, -1, 1.001, Dense, "weight_gradient", "gradient.textbook"),
    (OFF, -1, 1.001, Convolution, "forward", "linear.trilinear"),
    (OFF, -1, 1.001, Convolution, "weight_gradient", "linear.definition"),
    (OFF, -1, 1.001, AveragePooling, "forward", "linear.definition"),
    (OFF, -1, 1.001, Bernoulli, "gain_terms", "likelihood.gain"),
    (OFF, -1, 1.001, Multinomial, "gain_terms", "likelihood.gain"),
    (OFF, 0, 1.001, CycleBackpropagation, "__call__", "adversarial.own-output"),
    (OFF, 3, 1.001, linear.Workspace, "adjoint_and_gradient", "gradient.complex-steps"),
    (OFF, 3, 1.001, convolution.Im2colWorkspace, "adjoint_and_gradient", "linear.step"),
    (OFF, 3, 1.001, winograd.WinogradWorkspace, "adjoint_and_gradient", "linear.step"),
    ("a_hundredth_off", 1, 1.01, Logistic, "multiply_curvature", "activation.curvature"),
    ("a_hundredth_off", 1, 1.01, Tanh, "multiply_curvature", "adversarial.penalty"),
    ("sign_flipped", 2, -1.0, Likelihood, "error", "invariance.slope"),
    ("sign_flipped", 2, -1.0, Likelihood, "error", "gradient.complex-steps"),
    ("sign_flipped", -1, -1.0, Gaussian, "gain_slope", "likelihood.gain"),
    ("halved", "n", 0.5, LayerNoise, "draw", "noise.signals"),
):  # what comes out in the argument at a place, or in an attribute

    def _body(original, self, *args, _what=_what, _factor=_factor, **options):
        original(self, *args, **options)
        array = getattr(self, _what) if isinstance(_what, str) else args[_what]
        if array is not None:
            array *= _factor

    _body.__name__ = _name
    bug(tuple(_where))(_body)


@bug(
    (em, "q_gradient", "em.fisher"),
    (em, "entropy", "em.fisher"),
    (binary, "_errors", "em.fisher"),  # of both gradients: Fisher's identity does not see it
)
def returned_a_thousandth_off(original, *args):
    return original(*args) * 1.001


@bug(
    (NoiseSource, "__call__", "noise.screening"),
    (NoiseSource, "__call__", "joint.noisy"),
    (NoiseSource, "__call__", "adversarial.noise"),
    (em, "draw_noise", "em.nem"),
    (binary, "q", "em.gem"),
)
def returned_flipped(original, *args, **options):
    value = original(*args, **options)
    if isinstance(value, float):
        return -value
    value *= -1.0
    return value


# -- what is left out, or called with other options ------------------------------------------------
@bug(
    (Tanh, "multiply_derivative", "activation.derivative"),
    (Logistic, "multiply_derivative", "gradient.input-error"),
    (ReLU, "multiply_derivative", "gradient.complex-steps"),
    (LeakyReLU, "multiply_derivative", "gradient.complex-steps"),
    (Bernoulli, "multiply_derivative", "likelihood.output-derivative"),
    (Bernoulli, "multiply_derivative", "adversarial.own-output"),
)
def left_out(original, *args):
    pass


@bug((Gaussian, "scale", "invariance.update"), (trainer, "schedule_factor", "adversarial.replay"))
def always_one(original, *args):
    return 1.0


@bug((Gaussian, "log_normalizer", "likelihood.definition"))
def always_zero(original, *args):
    return 0.0


def other(field: str, value: Any, instead: Any) -> Callable[..., Any]:
    """Return what gives a field another value where it has a certain one."""
    return lambda old: instead if getattr(old, field) == value else getattr(old, field)


GAME, STEP_OF_GAME = (AdversarialTrainer, "__init__"), (CycleBackpropagation, "__init__")
SOURCE = NoiseSource, "__init__", "noise.screening"
for _name, _place, _fields, *_where in (
    ("always", None, {"factor": 1.0}, Likelihood, "error", "gradient.complex-steps"),
    ("always", None, {"factor": 1.0}, Likelihood, "error", "likelihood.contract"),
    ("always", None, {"counts": 1.0}, Multinomial, "error", "invariance.noisy-softmax"),
    ("always", None, {"statistics": "batch"}, laws, "backpropagate", "gradient.complex-steps"),
    ("always", None, {"flow": False}, *STEP_OF_GAME, "adversarial.own-output"),
    ("always", None, {"flow": False}, *STEP_OF_GAME, "adversarial.gradients"),
    ("always", None, {"backward": False}, Trainer, "__init__", "training.replay"),
    ("another_seed", None, {"seed": -1}, Trainer, "__init__", "training.replay"),
    ("another_seed", None, {"seed": -1}, *GAME, "adversarial.replay"),
    ("screening_left_out", 1, {"kind": other("kind", "nem", "blind")}, *SOURCE),
    ("anti_is_nem", 1, {"kind": other("kind", "anti", "nem")}, *SOURCE),
    ("drift_is_drawn", 1, {"kind": other("kind", "drift", "nem")}, *SOURCE),
    ("never_reflected", 1, {"rejected": "zero"}, *SOURCE),
    ("one_draw_of_several", 1, {"draws": 1}, *SOURCE),
    ("noise_not_multiplied", 1, {"mode": "additive"}, *SOURCE),
    ("curvature_forgotten", 1, {"law": other("law", "curvature", "gaussian")}, *SOURCE),
    ("projection_left_out", 1, {"update": "exact"}, *SOURCE),
    ("screened_as_a_whole", 1, {"screening": other("screening", "component", "vector")}, *SOURCE),
    ("gains_of_samples", 1, {"screening": other("screening", "expectation", "auto")}, *SOURCE),
    ("labels_of_generated_ignored", 4, {"backward_labels": "real"}, *GAME, "adversarial.gradients"),
    ("weight_of_g_ignored", 4, {"generator_weight": 1.0}, *GAME, "adversarial.gradients"),
    ("weight_of_d_ignored", 4, {"discriminator_weight": 1.0}, *GAME, "adversarial.gradients"),
    ("penalty_not_weighted", 4, {"penalty_weight": 1.0}, *GAME, "adversarial.penalty"),
    ("never_clipped", 4, {"clip": 1e9}, *GAME, "adversarial.replay"),
    ("one_step_of_d", 4, {"critic_steps": 1}, *GAME, "adversarial.replay"),
):  # other options, or fields of the argument at a place

    def _body(original, *args, _place=_place, _fields=_fields, **options):
        if _place is None:
            changed = {key: options[key] + 1 if v == -1 else v for key, v in _fields.items()}
            return original(*args, **options | changed)
        old, given = args[_place], list(args)
        fields = {key: v(old) if callable(v) else v for key, v in _fields.items()}
        given[_place] = laws.replace(old, **fields)
        return original(*given, **options)

    _body.__name__ = _name if _place else f"{_name} {_fields}"
    bug(tuple(_where))(_body)


# -- linear maps -----------------------------------------------------------------------------------
@bug(
    (Dense, "weight_gradient", "linear.definition"),
    (Convolution, "weight_gradient", "linear.trilinear"),
)
def one_entry_a_thousandth_off(original, self, backend, x, y, out):
    original(self, backend, x, y, out)
    out.reshape(-1)[-1] *= 1.001


@bug((Dense, "adjoint", "linear.trilinear"), (Dense, "adjoint", "adversarial.gradients"))
def kernel_not_transposed(original, self, backend, y, W, out):
    out[...] = y @ W.reshape(W.shape[::-1])


@bug((Convolution, "adjoint", "linear.definition"))
def kernel_turned_around(original, self, backend, y, W, out):
    original(self, backend, y, W[::-1, ::-1].copy(), out)


@bug((Reshape, "adjoint", "linear.trilinear"))
def the_same_order_back(original, self, backend, y, W, out):
    self.forward(backend, y, W, out)


@bug((AveragePooling, "adjoint", "linear.trilinear"))
def sums_spread_for_means(original, self, backend, y, W, out):
    original(self, backend, y, W, out)
    out *= float(np.prod(self.window))


@bug((Transposed, "weight_gradient", "linear.transposed"))
def arguments_not_exchanged(original, self, backend, x, y, out):
    self.linear_map.weight_gradient(backend, x, y, out)


@bug((Dense, "forward", "linear.contract"))
def rows_mixed(original, self, backend, x, W, out):
    original(self, backend, x, W, out)
    out += 1e-3 * out[::-1]


@bug((Dense, "forward", "linear.contract"))
def last_row_not_written(original, self, backend, x, W, out):
    held = out[-1].copy()
    original(self, backend, x, W, out)
    out[-1] = held


@bug((Dense, "forward", "linear.contract"))
def argument_overwritten(original, self, backend, x, W, out):
    original(self, backend, x, W, out)
    x *= 2.0


@bug((Dense, "adjoint", "linear.contract"))
def result_written_into_a_copy(original, self, backend, y, W, out):
    original(self, backend, y, W, np.reshape(out, (-1,)).reshape(out.shape))


@bug((Dense, "initial_weights", "linear.contract"))
def weights_all_equal(original, self, generator):
    return np.full(self.weight_shape, 0.1)


@bug((Dense, "forward", "linear.no-memory"))
def result_kept_for_later(original, self, backend, x, W, out):
    kept = self.__dict__.setdefault("kept", {})
    if x.shape not in kept:
        original(self, backend, x, W, out)
        kept[x.shape] = 0.5 * out
    out[...] = kept[x.shape]
    kept[x.shape] = out * 1.5


SHARED: dict[Any, Any] = {}


@bug((Dense, "forward", "linear.threads"))
def buffer_shared_by_threads(original, self, backend, x, W, out):
    held = SHARED.setdefault((x.shape, x.dtype), np.empty_like(x))
    held[...] = x
    original(self, backend, held, W, out)


@bug(
    (convolution.Im2colWorkspace, "load", "linear.step"),
    (winograd.WinogradWorkspace, "load", "linear.step"),
)
def weights_of_the_first_batch(original, self, W):
    if not hasattr(self, "seen"):
        original(self, W.copy())
    self.seen = True


@bug((Tanh, "multiply_derivative", "gradient.complex-steps"))
def square_forgotten(original, self, backend, error, a, scratch):
    error *= 1.0 - a


@bug((Tanh, "activate", "activation.contract"))
def overflows_where_z_is_large(original, self, backend, z, scratch):
    z[...] = (np.exp(z) - np.exp(-z)) / (np.exp(z) + np.exp(-z))


@bug((Tanh, "multiply_derivative", "activation.contract"))
def activation_overwritten(original, self, backend, error, a, scratch):
    original(self, backend, error, a, scratch)
    a *= a


@bug((Multinomial, "error", "invariance.noisy-softmax"), (Multinomial, "error", "joint.noisy"))
def published_is_exact(original, self, o, t, out, factor=1.0, **options):
    original(self, o, t, out, factor=factor)


@bug((Bernoulli, "log_likelihood", "likelihood.normalization"))
def half_of_log_p(original, self, o, t, *sums):
    original(self, o, t, *sums)
    o.column[...] *= 0.5
    return o.column


@bug(
    (Gaussian, "log_likelihood", "likelihood.class-sums"),
    (Bernoulli, "log_likelihood", "likelihood.class-sums"),
)
def counts_ignored(original, self, o, t, counts=None, square=None):
    return original(self, o, t, None if counts is None else np.ones_like(counts), square)


@bug((Multinomial, "multiply_derivative", "likelihood.output-derivative"))
def diagonal_of_the_derivative_only(original, self, o, error):
    error *= o.a * (1.0 - o.a)


# -- one direction ---------------------------------------------------------------------------------
@bug((Network, "log_likelihood", "gradient.definition"))
def log_p_of_the_batch(original, self, *args, **options):
    log_p = original(self, *args, **options)
    return np.full_like(log_p, np.mean(log_p))


@bug((Network, "predict", "gradient.definition"))
def statistics_left_as_they_are(original, self, x, statistics="running"):
    return original(self, x, "running" if statistics == "batch" else "batch")


@bug((laws, "backpropagate", "gradient.input-error"))
def input_error_not_averaged(original, net, x, t, **options):
    gradient, error = original(net, x, t, **options)
    return gradient, error * len(x)


@bug((laws, "backpropagate", "gradient.complex-steps"))
def gain_gradient_a_thousandth_off(original, net, x, t, **options):
    gradient, error = original(net, x, t, **options)
    for gain in net.views(gradient).gains:
        if gain is not None:
            gain[...] = 1.001 * gain
    return gradient, error


# -- both directions in three sweeps ---------------------------------------------------------------
def corrupts(body: Callable[..., None]) -> Callable[..., None]:
    """Make a bug of what changes a step's gradient when it is there."""

    def step(original, self, gradient, *clock):
        original(self, gradient, *clock)
        if gradient is not None:
            body(self, gradient)

    step.__name__ = body.__name__
    return step


JOINT = JointBackpropagation, "__call__"


@bug((*JOINT, "joint.samples"))
@corrupts
def shared_weight_counted_twice(self, gradient):
    self.net.views(gradient).weights[-1][...] *= 2.0


@bug((*JOINT, "joint.samples"), (*JOINT, "joint.classes"))
@corrupts
def biases_of_the_other_direction(self, gradient):
    up, down = self.net.views(gradient).biases[1:-1], self.net.reversed.views(gradient).biases[1:-1]
    for one, other in zip(up, down[::-1], strict=True):
        one[...], other[...] = other.copy(), one.copy()


@bug((*JOINT, "joint.classes"))
@corrupts
def means_of_classes_for_sums(self, gradient):
    if self.path == "classes":
        for bias in self.net.reversed.views(gradient).biases[1:]:
            bias[...] = bias / max(1.0, self.rows / 2.0)


@bug((*JOINT, "joint.none"))
@corrupts
def moving_biases_of_the_other_direction(self, gradient):
    if self.path == "none":
        self.net.reversed.views(gradient).biases[-1][...] = 1.0


@bug((*JOINT, "joint.samples"))
@corrupts
def gains_of_the_other_direction(self, gradient):
    up, down = self.net.views(gradient).gains, self.net.reversed.views(gradient).gains
    for one, other in zip(up, down[::-1], strict=True):
        if one is not None:
            one[...], other[...] = other.copy(), one.copy()


@bug((*JOINT, "joint.samples"), (*JOINT, "joint.none"))
@corrupts
def nll_of_the_sum(self, gradient):
    self.forward_nll *= self.rows


@bug((*JOINT, "joint.no-memory"))
def gradient_of_the_last_batch(original, self, gradient, *clock):
    original(self, gradient, *clock)
    now = gradient.copy()
    gradient[...] = 0.5 * (now + getattr(self, "last", now))
    self.last = now


@bug((*JOINT, "joint.no-memory"))
def vector_added_to(original, self, gradient, *clock):
    before = np.nan_to_num(gradient) if np.all(np.isfinite(gradient)) else np.nan
    original(self, gradient, *clock)
    gradient += 0.0 * before


@bug((linear, "run_parallel", "joint.blocks"))
def last_block_forgotten(original, function, items):
    original(function, items[:-1] if len(items) > 1 else items)


# -- normalized layers -----------------------------------------------------------------------------
@bug((*JOINT, "normalization.statistics"))
def statistics_moved_twice(original, self, gradient, *clock):
    before = self.net.statistics.copy()
    original(self, gradient, *clock)
    self.net.statistics[...] += self.net.statistics - before


@bug((*JOINT, "normalization.statistics"))
def statistics_moved_though_they_should_not(original, self, gradient, *clock):
    self.moves_statistics = True
    original(self, gradient, *clock)


@bug((Network, "predict", "normalization.evaluation"))
def predictions_by_their_own_batch(original, self, x, statistics="running"):
    return original(self, x, "batch")


# -- noise -----------------------------------------------------------------------------------------
@bug((laws.Noise, "std_at", "noise.screening"))
def epochs_for_iterations(original, self, epoch, iteration):
    return original(self, iteration, epoch)


@bug((laws.Noise, "std_at", "joint.noisy"), (laws.Noise, "std_at", "noise.signals"))
def deviation_doubled(original, self, epoch, iteration):
    return 2.0 * original(self, epoch, iteration)


@bug((NoiseSource, "__call__", "noise.screening"))
def everything_counts_as_accepted(original, self, *args):
    n = original(self, *args)
    self.accepted[...] = 1.0
    return n


@bug((NoiseSource, "__call__", "noise.screening"))
def gain_of_a_neuron(original, self, *args):
    n = original(self, *args)
    self.gain /= self.units
    return n


@bug((JointBackpropagation, "__init__", "joint.noisy"))
def noise_on_the_other_direction(original, self, net, rows, *, noise=None, **options):
    other = {"forward": "backward", "backward": "forward"}
    exchanged = {other.get(name, name): n for name, n in (noise or {}).items()}
    original(self, net, rows, noise=exchanged, **options)


@bug((JointBackpropagation, "__init__", "noise.screening"))
def one_stream_for_both(original, self, net, rows, *, generators=None, **options):
    if generators and "forward" in generators:
        generators = dict.fromkeys(generators, generators["forward"])
    original(self, net, rows, generators=generators, **options)


@bug((*JOINT, "noise.signal-gradient"))
def batch_left_noisy(original, self, gradient, *clock):
    original(self, gradient, *clock)
    self.x += 1e-6 * bool(self.sources)


# -- views, copies and files -----------------------------------------------------------------------
@bug((Network, "views", "network.views"))
def backward_biases_in_forward_order(original, self, flat):
    views = original(self, flat)
    if self.direction == "forward":
        return views
    return Parameters(views.weights, [None, *views.biases[:0:-1]], views.gains)


@bug((Network, "copy", "network.copies"))
def copy_shares_memory(original, self):
    return self


@bug((laws, "load_model", "files.round-trip"))
def running_statistics_lost(original, *args, **options):
    model = original(*args, **options)
    model.net.statistics[...] = 0.0
    model.net.parameters[...] = np.round(model.net.parameters, 12)
    return model


# -- optimizers and trainings ----------------------------------------------------------------------
def moving(change: Callable[..., Any]) -> Callable[..., Any]:
    """Make a bug of what changes an optimizer before a step."""

    def step(original, self, factor=1.0):
        change(self)
        original(self, factor)

    step.__name__ = change.__name__
    return step


STEP = Optimizer, "step"


@bug((*STEP, "optimizer.formula"))
@moving
def against_twice_the_gradient(self):
    self.gradient *= 2.0


@bug((*STEP, "optimizer.contract"))
@moving
def up_the_gradient(self):
    self.gradient *= -1.0


@bug((*STEP, "optimizer.contract"), (*STEP, "optimizer.formula"))
def learning_rate_schedule_ignored(original, self, factor=1.0):
    original(self, 1.0)


@bug((*STEP, "optimizer.weight-decay"))
def decay_twice(original, self, factor=1.0):
    decay, self.weight_decay = self.weight_decay, 2.0 * self.weight_decay
    original(self, factor)
    self.weight_decay = decay


@bug((Adam, "step", "optimizer.formula"))
def bias_correction_missing(original, self, factor=1.0):
    self.steps += 10_000
    original(self, factor)


@bug((Momentum, "bind", "optimizer.formula"), (Momentum, "move", "training.replay"))
def momentum_a_tenth(original, self, *args):
    self.momentum = 0.1
    return original(self, *args)


@bug((SGD, "update", "adversarial.gradients"))
def one_parameter_forgotten(original, self, numbers):
    self.gradient[0] = 0.0
    original(self, numbers)


@bug((Trainer, "resume", "training.resume"))
def optimizer_begins_again(original, self, state):
    original(self, state)
    self.optimizer.steps = 0
    for vector in self.optimizer.state.values():
        vector[...] = 0.0
    self.optimizer.learning_rate *= 2.0  # gradient descent keeps nothing


@bug((Trainer, "resume", "training.resume"))
def samples_in_another_order(original, self, state):
    original(self, {**state, "batch": 0})


@bug((AdversarialTrainer, "resume", "adversarial.resume"))
def streams_begin_again(original, self, state):
    fresh = {key: self.generator.backend.stream_state(each) for key, each in self._streams.items()}
    original(self, {**state, "streams": fresh})


@bug((AdversarialTrainer, "resume", "adversarial.resume"))
def average_begins_again(original, self, state):
    original(self, state)
    self._sum[...] = 0.0


# -- games -----------------------------------------------------------------------------------------
@bug((AdversarialTrainer, "__init__", "adversarial.streams"))
def samples_hang_on_the_noise(original, self, *args, noise=None, seed=0, **options):
    original(self, *args, noise=noise, seed=seed + bool(noise), **options)


@bug((Score, "log_likelihood", "adversarial.noise"))
def noise_on_the_wrong_side(original, self, o, t, *sums):
    return original(self, o, abs(t), *sums)


@bug((em, "gem_step", "em.gem"))
def step_in_the_wrong_direction(original, net, theta, *args, **options):
    step = original(net, theta, *args, **options)
    return laws.replace(step, theta=2.0 * theta - step.theta)


@bug((em, "posterior", "em.fisher"))
def prior_in_place_of_the_posterior(original, net, theta, x, y):
    return np.exp(net.log_joint(theta, x, y) - net.log_target(theta, y))


@bug((em, "posterior", "em.fisher"))
def posterior_normalized_over_rows(original, net, theta, x, y):
    joint = net.log_joint(theta, x, y)
    p = np.exp(joint - joint.max())
    return p / p.sum(axis=0, keepdims=True)


@bug((em, "posterior", "em.fisher"))
def posterior_of_the_other_direction(original, net, theta, x, y):
    return original(net.reversed, theta, y, x)


@bug((em, "posterior", "em.fisher"))
def most_probable_state_only(original, net, theta, x, y):
    r = original(net, theta, x, y)
    return (r == r.max(axis=1, keepdims=True)).astype(float)


@bug((binary, "_assemble", "em.fisher"))
def untransposed(original, net, *slopes):
    flat = original(net, *slopes)
    W, _, _, _ = net.layers(flat)
    W[...] = W.T.reshape(W.shape)
    return flat


@bug((screening, "_passes", "em.nem"))
def the_wrong_way(original, noise, gain, *rest):
    return original(noise, -gain, *rest)


@bug((binary, "gains_at", "em.nem"))
def noise_subtracted(original, *args):
    gains = original(*args)
    return lambda n: gains(-n)


BUGS["any step accepted: binary.ARMIJO breaks em.gem"] = Bug(binary, "ARMIJO", "em.gem", -1e9)
