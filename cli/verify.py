"""`nembp verify`: every law on random networks, or a function or class of the user's own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from nembp.errors import VerificationError

from .options import DEVICE, NATURAL, POSITIVE, Option, command
from .output import emit, status

if TYPE_CHECKING:
    from nembp.verification.laws import Law, LawResult


@command(
    click.Argument(["targets"], nargs=-1, metavar="[LAW | MODULE:FUNCTION]..."),
    Option("--cases", "Random networks for each law; slow laws take every second to eleventh.",
           POSITIVE, default=135),
    Option("--seed", "Of networks, points and directions.", NATURAL, default=0),
    DEVICE,
    Option("--dtype", "Precision of the engine.", ("float64", "float32"), default="float64"),
    Option("--point FILE.npy|MODULE:NAME", "Where to check MODULE:FUNCTION.  [default: "
           "MODULE:point]"),
    Option("--size", "Check it at N random numbers instead.", POSITIVE),
    Option("--list listed", "List the laws, and try nothing."),
    Option("-q --quiet", "No progress on stderr."),
    epilog="Exit codes: 0 everything holds, 2 bad option or no such law, module or function, "
    "3 your code raised or returned no value and gradient, 4 no usable GPU, 7 a law or gradient "
    "does not hold.",
)  # fmt: skip
def verify(args: Any) -> None:
    """Try every law of the engine on random networks, or check your own code.

    Each law compares what the engine computes with finite differences, complex steps, or the
    definition written out a second time. Of the networks on which a law fails, the smallest is
    printed, as code that repeats it. Name laws, or their beginnings, to try only those:
    `nembp verify joint noise.screening`.

    MODULE:FUNCTION, imported from the working directory, is a function of one array that returns
    (value, gradient); or a likelihood, linear map, activation or optimizer of yours.
    """
    from nembp.verification.checks import UserCodeError, check_user_code, find_laws, try_law

    own = [target for target in args.targets if ":" in target]
    names = [target for target in args.targets if ":" not in target]
    where = {"point": args.point, "size": args.size}
    if any(value is not None for value in where.values()) and not own:
        raise click.UsageError("--point and --size are for MODULE:FUNCTION, and none is given")
    laws = find_laws(names) if names or not own else []
    if args.listed:
        keys = "law", "statement", "source"
        rows = [(law.name, law.statement, law.source) for law in laws]
        emit(args, {"laws": [dict(zip(keys, row, strict=True)) for row in rows]}, [keys, *rows])
        return
    reports: dict[str, Any] = {}
    for target in own:
        try:
            reports[target] = check_user_code(target, **where, device=args.device, seed=args.seed)
        except UserCodeError as error:
            click.echo(error.trace, err=True)
            raise
    found: list[LawResult] = []
    with status(quiet=args.quiet) as tell:
        for law in laws:
            tell(f"{law.name}, {len(found)} of {len(laws)} laws done")
            found.append(try_law(law, args.cases, args.seed, args.device, args.dtype))
    facts: dict[str, Any] = {}
    shown: list[Any] = []
    wrong: list[str] = []
    if laws:
        facts = args.given("cases", "seed", "device", "dtype")
        facts["laws"] = [_facts(law, one) for law, one in zip(laws, found, strict=True)]
        failed = [one.law for one in found if not one.passed]
        if failed:
            wrong = [f"{len(failed)} of {len(found)} laws do not hold: {', '.join(failed)}"]
        tried = sum(one.cases > 0 for one in found)
        held = f"\n{tried - len(failed)} of {tried} laws hold"
        if tried < len(found):
            held += f", and {len(found) - tried} had no case"
        shown = [_rows(found), *_counterexamples(laws, found)]
        shown.append(f"{held} ({args.device}, {args.dtype}, seed {args.seed})")
    for target, report in reports.items():
        checked = {**dataclasses.asdict(report), "passed": report.passed}
        facts.setdefault("checked", {})[target] = checked
        shown.append(str(report))
        if not report.passed:
            wrong.append(f"{target} does not hold: {report.summary}")
    emit(args, facts | {"passed": not wrong}, *shown)
    if wrong:
        raise VerificationError("; ".join(wrong))


def _facts(law: Law, found: LawResult) -> dict[str, Any]:
    """Return JSON values; an infinite error is None."""
    return {
        "law": law.name, "statement": law.statement, "source": law.source, "cases": found.cases,
        "worst_relative_error": found.error if math.isfinite(found.error) else None,
        "worst": found.worst, "tolerance": found.tolerance, "passed": found.passed,
        "counterexample": found.code, "seconds": round(found.seconds, 3),
    }  # fmt: skip


def _rows(found: list[LawResult]) -> Iterator[tuple[str, ...]]:
    yield "law", "cases", "worst error", "tolerance", "", "source"
    for one in found:
        error, state = f"{one.error:.1e}", "passed" if one.passed else "FAILED"
        if not one.cases:
            error, state = "-", "no case"
        yield one.law, str(one.cases), error, f"{one.tolerance:.0e}", state, one.source


def _counterexamples(laws: list[Law], found: list[LawResult]) -> Iterator[str]:
    for law, one in zip(laws, found, strict=True):
        if one.code:
            yield f"\n{law.name} FAILED: {law.statement}\n  {one.worst}"
            yield "A small network that shows it:\n"
            yield "\n".join(f"    {line}".rstrip() for line in one.code.splitlines())
