"""`nembp verify`: every law on random networks, or a function or class of the user's own."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import click

from nembp.errors import VerificationError

from .options import device_option, json_option
from .output import emit_json, emit_table
from .progress import status

if TYPE_CHECKING:
    from nembp.verification.law import Law, LawResult


@click.command(
    name="verify",
    epilog="Exit codes: 0 everything holds, 2 bad option or no such law, module or function, "
    "3 your code raised or returned no value and gradient, 4 no usable GPU, 7 a law or gradient "
    "does not hold.",
)
@click.argument("targets", nargs=-1, metavar="[LAW | MODULE:FUNCTION]...")
@click.option(
    "--cases",
    type=click.IntRange(min=1),
    default=135,
    show_default=True,
    metavar="N",
    help="Random networks for each law; slow laws take every second to eleventh.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="S",
    help="Of networks, points and directions.",
)
@device_option
@click.option(
    "--dtype",
    type=click.Choice(["float64", "float32"]),
    default="float64",
    show_default=True,
    help="Precision of the engine.",
)
@click.option(
    "--point",
    metavar="FILE.npy|MODULE:NAME",
    help="Where to check MODULE:FUNCTION.  [default: MODULE:point]",
)
@click.option(
    "--size", type=click.IntRange(min=1), metavar="N", help="Check it at N random numbers instead."
)
@click.option("--list", "listed", is_flag=True, help="List the laws, and try nothing.")
@json_option
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def verify(
    targets: tuple[str, ...],
    cases: int,
    seed: int,
    device: str,
    dtype: str,
    point: str | None,
    size: int | None,
    listed: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Try every law of the engine on random networks, or check your own code.

    Each law compares what the engine computes with finite differences, complex steps, or the
    definition written out a second time. Of the networks on which a law fails, the smallest is
    printed, as code that repeats it. Name laws, or their beginnings, to try only those:
    `nembp verify joint noise.screening`.

    MODULE:FUNCTION, imported from the working directory, is a function of one array that returns
    (value, gradient); or a likelihood, linear map, activation or optimizer of yours.
    """
    from nembp.verification.checks import UserCodeError, check_user_code, find_laws, try_law

    own = [target for target in targets if ":" in target]
    names = [target for target in targets if ":" not in target]
    if (point is not None or size is not None) and not own:
        raise click.UsageError("--point and --size are for MODULE:FUNCTION, and none is given")
    laws = find_laws(names) if names or not own else []
    if listed:
        keys = "law", "statement", "source"
        rows = [(law.name, law.statement, law.source) for law in laws]
        if as_json:
            emit_json({"laws": [dict(zip(keys, row, strict=True)) for row in rows]})
        else:
            emit_table([keys, *rows])
        return
    found: list[LawResult] = []
    with status(quiet=quiet) as tell:
        for law in laws:
            tell(f"{law.name}, {len(found)} of {len(laws)} laws done")
            found.append(try_law(law, cases, seed, device, dtype))
    failed = [one for one in found if not one.passed]
    result: dict[str, Any] = {}
    if laws:
        result = {"cases": cases, "seed": seed, "device": device, "dtype": dtype}
        result["laws"] = [_as_dict(law, one) for law, one in zip(laws, found, strict=True)]
    if laws and not as_json:
        _print_laws(laws, found)
        tried = sum(one.cases > 0 for one in found)
        held = f"{tried - len(failed)} of {tried} laws hold"
        if tried < len(found):
            held += f", and {len(found) - tried} had no case"
        click.echo(f"\n{held} ({device}, {dtype}, seed {seed})")
    reports: dict[str, Any] = {}
    for target in own:
        try:
            options: Any = {"point": point, "size": size, "device": device, "seed": seed}
            reports[target] = check_user_code(target, **options)
        except UserCodeError as error:
            click.echo(error.trace, err=True)
            raise
        result.setdefault("checked", {})[target] = {
            **dataclasses.asdict(reports[target]),
            "passed": reports[target].passed,
        }
        if not as_json:
            click.echo(str(reports[target]))
    wrong = {target: report for target, report in reports.items() if not report.passed}
    if as_json:
        emit_json({**result, "passed": not failed and not wrong})
    if failed:
        broken = ", ".join(one.law for one in failed)
        raise VerificationError(f"{len(failed)} of {len(found)} laws do not hold: {broken}")
    for target, report in wrong.items():
        raise VerificationError(f"{target} does not hold: {report.summary}", report)


def _as_dict(law: Law, found: LawResult) -> dict[str, Any]:
    """Return JSON values; an infinite error is None."""
    return {
        "law": law.name,
        "statement": law.statement,
        "source": law.source,
        "cases": found.cases,
        "worst_relative_error": found.error if math.isfinite(found.error) else None,
        "worst": found.worst,
        "tolerance": found.tolerance,
        "passed": found.passed,
        "counterexample": found.code,
        "seconds": round(found.seconds, 3),
    }


def _print_laws(laws: list[Law], found: list[LawResult]) -> None:
    rows = [("law", "cases", "worst error", "tolerance", "", "source")]
    for one in found:
        error, state = f"{one.error:.1e}", "passed" if one.passed else "FAILED"
        if not one.cases:
            error, state = "-", "no case"
        rows.append((one.law, str(one.cases), error, f"{one.tolerance:.0e}", state, one.source))
    emit_table(rows)
    for law, one in zip(laws, found, strict=True):
        if one.code:
            click.echo(f"\n{law.name} FAILED: {law.statement}\n  {one.worst}")
            click.echo("A small network that shows it:\n")
            click.echo("\n".join(f"    {line}".rstrip() for line in one.code.splitlines()))
