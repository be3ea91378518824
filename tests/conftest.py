"""Settings of the whole suite.

Hypothesis draws the same examples in every run, so that a red run can be repeated, and reports the
first that fails. To search further, ``pytest --hypothesis-profile=search``: other examples in every
run, twenty times as many, and failing ones made as simple as they can be.

``pytest --device gpu`` runs on a GPU what otherwise runs on a stand-in for CuPy (`fake_cupy`).
"""

from __future__ import annotations

import contextlib
import os
import signal

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported: matrices are tiny

# a shell starts background jobs with Ctrl-C ignored, which tests of interruptions would inherit
with contextlib.suppress(ValueError):  # not in the main thread
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from hypothesis import HealthCheck, Phase, settings

_slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
_common = {"deadline": None, "suppress_health_check": _slow}
settings.register_profile(
    "repeatable",
    max_examples=20,
    derandomize=True,
    database=None,
    # a bug in the engine fails dozens of laws, and simplifying each would take minutes
    phases=[Phase.explicit, Phase.generate],
    **_common,
)
settings.register_profile("search", max_examples=400, print_blob=True, **_common)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", choices=("cpu", "gpu"), default="cpu")


def pytest_configure(config: pytest.Config) -> None:
    os.environ["NEMBP_TEST_DEVICE"] = config.getoption("--device")


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """Work in an empty folder, and see no options in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("NEMBP_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for the files of all tests of a module, which each example writes anew."""
    return tmp_path_factory.mktemp("place")
