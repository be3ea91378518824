"""CSV files made and mutated at random: read, or refused in a line and in little memory."""

from __future__ import annotations

import pytest
from fuzz_cases import CONSTANT, FILES, TIMES, check_dataset, mutated, traced
from hypothesis import given
from hypothesis import strategies as st

from nembp.datasets import load


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


# --- csv

cell = (
    st.floats(-1e3, 1e3).map(lambda value: f"{value:g}")
    | st.sampled_from(["1", "2", "a", "b", "", "nan", "inf", "1e999", "1_0", '"', '"a,b"', " 3 "])
    | st.text(max_size=5)
)
random_table = st.lists(st.lists(cell, max_size=4), max_size=8).map(
    lambda rows: "\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")
)


@st.composite
def valid_table(draw) -> bytes:
    labels = st.integers(0, 9).map(str) if draw(st.booleans()) else st.sampled_from("abc")
    n = draw(st.integers(0, 12))
    rows = [f"{i},{i / 7:.3f},{draw(labels)}" for i in range(n)]
    return "\n".join(["p,q,r", *rows]).encode()


@FILES
@given(
    content=mutated(valid_table()) | random_table | st.binary(max_size=80),
    task=st.sampled_from(["auto", "classification", "regression"]),
)
def test_csv(place, content, task):
    path = place / "x.csv"
    path.write_bytes(content)
    result, peak = traced(lambda: load("csv", path, task=task))
    assert peak <= TIMES["csv"] * len(content) + CONSTANT
    if result is not None:
        check_dataset(result)
        rows = [line for line in content.splitlines() if line]
        if b'"' not in content:  # quotes may hold line ends
            assert len(result.train) + len(result.test) == len(rows) - 1


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n" + "1,2\n" * 50_000,
        "a,b\n" + "".join(f"1,{i:x}x\n" for i in range(50_000)),  # as many labels as rows
        ",".join(f"c{i}" for i in range(50_000)) + "\n",
        "a," * 100_000 + "\n",
        "a,b\n" + "," * 200_000 + "\n",
        "a,b\n" + "\n" * 200_000,
        "a,b\n1," + '"' + "\n" * 200_000,
        "a" * 200_000,
    ],
)
def test_large_tables_stay_within_the_bound(place, text):
    path = place / "large.csv"
    path.write_text(text)
    result, peak = traced(lambda: load("csv", path))
    assert peak <= TIMES["csv"] * len(text) + CONSTANT
    if result is not None:
        check_dataset(result)
