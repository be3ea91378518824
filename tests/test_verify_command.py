"""`nembp verify`: its options, output and exit codes."""

from __future__ import annotations

import json

import pytest
from command_line import fails, run
from planted.engine import BUGS
from verify_cases import plant

from nembp.errors import VerificationError
from nembp.verification.laws import LAWS


# -- the command -------------------------------------------------------------------------------
def test_the_command_prints_a_table():
    result = run("verify", "joint", "em.fisher", "--cases", 6)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["law", "cases", "worst", "error", "tolerance", "source"]
    names = [*(name for name in LAWS if name.startswith("joint")), "em.fisher"]
    rows = lines[1 : 1 + len(names)]
    assert [line.split()[0] for line in rows] == names
    assert all("passed" in line for line in rows)
    assert lines[-1] == f"{len(names)} of {len(names)} laws hold (cpu, float64, seed 0)"


@pytest.mark.parametrize(
    "bug",
    [
        "bias_correction_missing",
        "class_ignored",
        "noise_on_the_other_direction",
        "copy_shares_memory",
        "signals_of_the_last_batch",
    ],
)
def test_the_command_finds_planted_bugs(bug, monkeypatch):
    laws = {planted.law for name, planted in BUGS.items() if name.startswith(f"{bug}:")}
    name = next(name for name in BUGS if name.startswith(f"{bug}:"))
    monkeypatch.setattr(BUGS[name].owner, BUGS[name].method, BUGS[name].planted)
    for law in laws:
        result = run("verify", law, "--quiet")
        assert result.exit_code == 7
        assert f"{law} FAILED" in result.stdout
        assert result.stderr == f"nembp: error: 1 of 1 laws do not hold: {law}\n"
        code = "\n".join(line[4:] for line in result.stdout.splitlines() if line.startswith("    "))
        with pytest.raises(VerificationError, match=law):
            exec(code, {})


def test_json(monkeypatch):
    passing = json.loads(
        run("verify", "network", "--cases", 3, "--json", "--dtype", "float32").stdout
    )
    assert passing["passed"] is True
    assert (passing["cases"], passing["seed"], passing["dtype"]) == (3, 0, "float32")
    assert passing["laws"][0]["law"] == "network.views"
    assert passing["laws"][0]["counterexample"] is None
    law = plant(monkeypatch, "anti_is_nem")
    result = run("verify", law, "--json", "--quiet")
    failing = json.loads(result.stdout)
    assert result.exit_code == 7
    assert (failing["passed"], failing["laws"][0]["passed"]) == (False, False)
    assert "Case(" in failing["laws"][0]["counterexample"]


def test_listing_tries_nothing(monkeypatch):
    monkeypatch.setattr("nembp.verification.runner.generate", None)
    listed = run("verify", "--list").stdout.splitlines()
    assert len(listed) == 1 + len(LAWS)
    assert (
        json.loads(run("verify", "em", "--list", "--json").stdout)["laws"][0]["law"] == "em.fisher"
    )


def test_a_law_without_a_case_says_so():
    result = run("verify", "device", "--cases", 2)
    assert result.exit_code == 0
    assert "no case" in result.stdout
    assert "device.agreement" not in run("verify", "--cases", 1).stdout


def test_bad_use():
    line = fails(2, "verify", "joit")
    assert "there is no law 'joit'; did you mean 'joint'? For a function of your own write" in line
    assert len(line) < 400
    assert "--point and --size are for MODULE:FUNCTION" in fails(2, "verify", "--size", 3)
    assert "'--cases': 0 is not in the range" in fails(2, "verify", "--cases", 0)
