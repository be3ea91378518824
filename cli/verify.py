"""`nembp verify`: every law on random networks, or a function or class of the user's own."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from nembp.errors import VerificationError

from .options import device_option, json_option
from .output import emit_json, emit_table
from .progress import status

if TYPE_CHECKING:
    from nembp.verification.runner import Verification


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
    from nembp.threads import usable_cores
    from nembp.verification.runner import UserCodeError, check_user_code, find_laws
    from nembp.verification.runner import verify as try_laws

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
    found: Verification | None = None
    reports: dict[str, Any] = {}
    if laws:
        with status(quiet=quiet) as tell:
            found = try_laws(
                names,
                cases=cases,
                seed=seed,
                device=device,
                dtype=dtype,
                workers=min(2, usable_cores()),
                progress=lambda law, done, total: tell(f"{law}, {done} of {total} cases done"),
            )
        if not as_json:
            _print_laws(found)
    for target in own:
        try:
            reports[target] = check_user_code(
                target, point=point, size=size, device=device, seed=seed
            )
        except UserCodeError as error:
            click.echo(error.trace, err=True)
            raise
        if not as_json:
            click.echo(str(reports[target]))
    if as_json:
        result = {} if found is None else found.as_dict()
        if reports:
            result["checked"] = {
                target: dataclasses.asdict(report) | {"passed": report.passed}
                for target, report in reports.items()
            }
        held = [result.get("passed", True), *(report.passed for report in reports.values())]
        emit_json({**result, "passed": all(held)})
    if found is not None:
        found.raise_for_failure()
    for target, report in reports.items():
        if not report.passed:
            raise VerificationError(f"{target} does not hold: {report.summary}", report)


def _print_laws(found: Verification) -> None:
    rows = [("law", "cases", "worst error", "tolerance", "", "source")]
    for outcome in found.outcomes:
        state = "passed" if outcome.passed else "FAILED"
        rows.append(
            (
                outcome.law.name,
                str(outcome.cases),
                f"{outcome.error:.1e}" if outcome.cases else "-",
                f"{outcome.tolerance:.0e}",
                state if outcome.cases else "no case",
                outcome.law.source,
            )
        )
    emit_table(rows)
    for outcome in found.failures:
        click.echo(f"\n{outcome.law.name} FAILED: {outcome.law.statement}\n  {outcome.worst}")
        click.echo("A small network that shows it:\n")
        click.echo("\n".join(f"    {line}".rstrip() for line in str(outcome.code).splitlines()))
    held = f"{len(found.outcomes) - len(found.failures)} of {len(found.outcomes)} laws hold"
    click.echo(f"\n{held} ({found.device}, {found.dtype}, seed {found.seed})")
