from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nembp import checkpoints as kinds
from nembp.checkpoints import decode, encode, register_kind
from nembp.engine.activations import ACTIVATIONS, Activation, Identity, LeakyReLU, Tanh
from nembp.engine.likelihoods import Bernoulli, Gaussian, Likelihood, Multinomial
from nembp.engine.linear import Dense, LinearMap, Transposed
from nembp.engine.network import Layer
from nembp.errors import ArchitectureError, DataError

if TYPE_CHECKING:
    from decimal import Decimal

positive = st.floats(0.0, exclude_min=True, allow_infinity=False)
sizes = st.integers(1, 1 << 40)


@dataclass(frozen=True)
class Convolution(Dense):
    """Fields of every sort that a later kind may have."""

    kernel: tuple[int, int] = (3, 3)
    strides: tuple[int, ...] = ()
    padding: Literal["same", "valid"] = "same"
    inner: Activation | None = None
    label: str | None = None
    open: bool = False
    neurons: int = field(init=False, default=0)


@pytest.fixture
def registered(monkeypatch):
    for family in kinds._KINDS:
        monkeypatch.setitem(kinds._KINDS, family, dict(kinds._KINDS[family]))
    register_kind("synapse", "own-convolution", Convolution)


def through_json(hint: Any, value: Any) -> Any:
    return decode(hint, json.loads(json.dumps(encode(value), allow_nan=False)))


@given(
    st.one_of(
        st.builds(Multinomial, positive),
        st.builds(Bernoulli, positive),
        st.builds(Gaussian, positive),
    )
)
def test_every_likelihood_comes_back_exactly(likelihood):
    assert through_json(Likelihood, likelihood) == likelihood


@given(st.recursive(st.builds(Dense, sizes, sizes), lambda inner: st.builds(Transposed, inner)))
def test_every_linear_map_comes_back_exactly(linear_map):
    assert through_json(LinearMap, linear_map) == linear_map


def test_every_activation_comes_back_exactly():
    for kind in ACTIVATIONS.values():
        assert through_json(Activation, kind()) == kind()
    assert through_json(Activation, LeakyReLU(0.1 + 0.2)) == LeakyReLU(0.1 + 0.2)


def test_a_registered_kind_may_have_fields_of_every_sort(registered):
    rich = Convolution(4, 3, (5, 7), (1, 2, 3), "valid", LeakyReLU(0.25), "label", True)
    for linear_map in (rich, Convolution(4, 3), Transposed(rich)):
        assert through_json(LinearMap, linear_map) == linear_map


def test_layers_and_numpy_scalars_are_written_too():
    layers = (Layer(4), Layer(6, Tanh(), 3), Layer(np.int64(2), LeakyReLU(np.float64(0.5))))
    back = through_json(tuple[Layer, ...], layers)
    assert back == layers
    assert type(back[2].size) is int


def test_a_field_added_later_gets_its_default(registered):
    old = {"kind": "own-convolution", "inputs": 4, "outputs": 3}
    assert decode(LinearMap, old) == Convolution(4, 3)


def test_a_kind_may_be_imported_when_a_file_names_it(registered, monkeypatch):
    path = f"{__name__}:Convolution"
    monkeypatch.setitem(kinds._KINDS["synapse"], "own-convolution", path)
    register_kind("synapse", "own-convolution", Convolution)
    assert encode(Convolution(4, 3))["kind"] == "own-convolution"
    assert through_json(LinearMap, Convolution(4, 3)) == Convolution(4, 3)


def test_a_registered_activation_is_known_by_name_everywhere(monkeypatch):
    @dataclass(frozen=True)
    class Shifted(Identity):
        shift: float = 1.0

    with pytest.raises(ArchitectureError, match=r'register_kind\("activation", name, .*Shifted\)'):
        encode(Shifted())
    monkeypatch.setitem(ACTIVATIONS, "shifted", Shifted)
    assert encode(Shifted(2.0)) == {"kind": "shifted", "shift": 2.0}


def test_registration_is_refused_where_it_could_not_work(registered):
    class Plain:
        pass

    @dataclass(frozen=True)
    class Unresolved(Identity):
        step: Decimal | None = None

    with pytest.raises(ArchitectureError, match="Plain cannot be registered"):
        register_kind("synapse", "plain", Plain)
    with pytest.raises(ArchitectureError, match="subclasses LinearMap"):
        register_kind("synapse", "tanh", Tanh)
    with pytest.raises(ArchitectureError, match="'dense' is already registered"):
        register_kind("synapse", "dense", Convolution)
    with pytest.raises(ArchitectureError, match="'Decimal' has no meaning at run time"):
        register_kind("activation", "unresolved", Unresolved)


def test_values_that_json_cannot_hold_are_refused():
    for value in (object(), {1, 2}, 1j, Tanh):
        with pytest.raises(ArchitectureError, match="cannot be kept in a file"):
            encode(value)


@pytest.mark.parametrize(
    ("hint", "written", "message"),
    [
        (
            LinearMap,
            {"kind": "torus", "inputs": 4},
            "linear map of unknown kind 'torus'; expected one",
        ),
        (LinearMap, {"kind": ["dense"]}, r"unknown kind \['dense'\]"),
        (LinearMap, {"inputs": 4, "outputs": 3}, "unknown kind None"),
        (LinearMap, "dense", "'dense' where LinearMap was expected"),
        (
            LinearMap,
            {"kind": "dense", "inputs": 4},
            "dense has the fields 'inputs'; expected inputs",
        ),
        (LinearMap, {"kind": "dense", "inputs": 4, "outputs": 3, "extra": 0}, "has the fields"),
        (LinearMap, {"kind": "dense", "inputs": 4.0, "outputs": 3}, "dense: 4.0 where int was"),
        (LinearMap, {"kind": "dense", "inputs": True, "outputs": 3}, "dense: True where int was"),
        (LinearMap, {"kind": "dense", "inputs": 0, "outputs": 3}, "at least 1 neuron"),
        (
            LinearMap,
            {"kind": "transposed", "synapse": {"kind": "x"}},
            "transposed: linear map of unk",
        ),
        (Likelihood, {"kind": "gaussian", "variance": "1"}, "gaussian: '1' where float was"),
        (Likelihood, {"kind": "gaussian", "variance": math.inf}, "positive, finite"),
        (Likelihood, {"kind": "relu"}, "likelihood of unknown kind 'relu'"),
        (Layer, {"size": 3, "activation": {"kind": "x"}}, "Layer: activation of unknown kind 'x'"),
        (tuple[int, ...], [1, "2"], "'2' where int was expected"),
        (tuple[int, int], [1], r"\[1\] where tuple was expected"),
        (Literal["a", "b"], "c", "'c' where"),
        (int | None, "c", "'c' where int was expected"),
        (str, "y" * 10**6, None),
        (int, "y" * 10**6, r"'y{59}\.\.\. where int was expected"),
    ],
)
def test_what_does_not_fit_is_described(hint, written, message):
    if message is None:
        assert decode(hint, written) == written
        return
    with pytest.raises((DataError, ArchitectureError), match=message):
        decode(hint, written)
