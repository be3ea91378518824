"""Run scikit-learn's own tests of MLPClassifier and MLPRegressor on nembp's estimators.

    python tests/run_test_mlp.py [options of pytest]

`sklearn.neural_network.tests.test_mlp` runs with the two class names replaced. Every test passes,
or is named below with the reason why it cannot; one that is named and passes is an error.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest
from sklearn.neural_network.tests import test_mlp

LBFGS = "solver='lbfgs' is refused: the two directions are trained by batches"
PRIVATE = "sets MLPClassifier's private attributes and weights by hand"
FLOAT32 = "dtype is float32 by default; it passes with dtype='auto'"
POISSON = "there is no loss='poisson'"

REASONS = {
    "test_fit": PRIVATE,
    "test_gradient": LBFGS,
    "test_lbfgs_classification": LBFGS,
    "test_lbfgs_regression": LBFGS,
    "test_lbfgs_classification_maxfun": LBFGS,
    "test_lbfgs_regression_maxfun": LBFGS,
    "test_multilabel_classification": LBFGS,
    "test_multioutput_regression": LBFGS,
    "test_predict_proba_multilabel": LBFGS,
    "test_sparse_matrices": LBFGS,
    "test_warm_start": LBFGS,
    "test_mlp_warm_start_no_convergence[lbfgs": LBFGS,
    "test_partial_fit_regression": FLOAT32,
    "test_early_stopping_stratified": "a rare class is no error, as it is none of MLP's many classes",
    "test_mlp_vs_poisson_glm_equivalent": POISSON,
}


def reason(name: str) -> str | None:
    """Return why a test cannot pass, by its name with or without parameters."""
    keys = [key for key in REASONS if name == key or name.startswith((f"{key}[", f"{key}-"))]
    return REASONS[keys[0]] if keys else None


class Named:
    """Marks the tests that are named."""

    @pytest.fixture
    def global_random_seed(self) -> int:
        return 0

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            why = reason(item.name)
            if why is not None:
                item.add_marker(pytest.mark.xfail(reason=why, strict=True))


def main(options: list[str]) -> int:
    source = Path(test_mlp.__file__).read_text(encoding="utf-8")
    old = "from sklearn.neural_network import MLPClassifier, MLPRegressor"
    assert old in source, f"{test_mlp.__file__} no longer says {old!r}"
    ours = "BidirectionalClassifier as MLPClassifier, BidirectionalRegressor as MLPRegressor"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test_mlp_of_nembp.py"
        path.write_text(source.replace(old, f"from nembp import {ours}"), encoding="utf-8")
        empty = Path(folder) / "pytest.ini"
        empty.write_text("[pytest]\n")
        given = ["-c", str(empty), "-p", "no:cacheprovider", "-q", "-rxX", *options, str(path)]
        return int(pytest.main(given, plugins=[Named()]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
