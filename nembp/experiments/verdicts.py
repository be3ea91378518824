"""What becomes of a claim, by the rule that its protocol stated before the run.

With the effect signed so that positive is as claimed, its interval [low, high], the margin m below
which an effect is none, and the published figure f:

=============== ==================================================================================
verdict         when (the first that holds)
=============== ==================================================================================
not reproduced  −m ≤ low and high ≤ m: whatever it is, it is nothing
reversed        high < 0, and the Holm-corrected p is at most alpha
reproduced      0 < low, p at most alpha, and the mean reaches share · f (or m, without a figure)
                ("not reproduced" where the arm itself misses what the claim says it has to reach)
not reproduced  high < f: the published figure is excluded (or high < m, without a figure)
undecided       otherwise
=============== ==================================================================================

A claim that an arm is no worse by as much as w (``within``) is reproduced where −w < low, reversed
where high < −w, and undecided otherwise; of ten seeds whose mean effect is −w, the first is said
falsely of about one experiment in twenty.

A replicate that diverged has no effect, but counts: an arm that diverged cannot reproduce a claim,
nor can a baseline that diverged be what reverses it; a claim whose arm diverged in half of its
pairs or more is not reproduced.

Harm is never success. A claim that an effect is larger here than there is told from
e_here − max(e_there, 0), which is at most the effect here: however much is spoilt there, only a
benefit here can reproduce it. Nor is it reversed (but not reproduced) unless there is a benefit
there, since harm here alone says nothing of there. And where an arm does best with next to none of
its noise, the claim is not reproduced: whatever it gains or loses is its learning rate's.
"""

from __future__ import annotations

from typing import Literal

from nembp.experiments.protocol import Comparison, Rule
from nembp.experiments.statistics import Estimate

__all__ = ["Verdict", "verdict"]

Verdict = Literal["reproduced", "not reproduced", "reversed", "undecided"]


def verdict(
    effect: Estimate,
    p: float,
    comparison: Comparison,
    rule: Rule,
    *,
    there: Estimate | None = None,
    reached: bool = True,
    tuned_away: bool = False,
) -> Verdict:
    """Judge a claim.

    Parameters
    ----------
    effect : Estimate
        With its interval, and how many replicates diverged.
    p : float
        Holm-corrected.
    comparison : Comparison
        Its margin, published figure and ``within``.
    rule : Rule
        Of its protocol.
    there : Estimate, optional
        The effect that was subtracted, of a comparison with ``minus``.
    reached : bool
        Whether the arm's mean is as good as the comparison's ``reach``.
    tuned_away : bool
        Whether tuning chose the least of the arm's strengths of noise.

    Examples
    --------
    >>> claim = Comparison("noise", "nem", "none", "nll", published=39.0, margin=1.0)
    >>> verdict(Estimate(45.0, 40.0, 50.0, wins=10, n=10), 0.002, claim, Rule())
    'reproduced'
    >>> verdict(Estimate(5.0, 3.0, 7.0, wins=10, n=10), 0.002, claim, Rule())
    'not reproduced'
    """
    pairs = effect.n + effect.diverged + effect.baseline_diverged
    if tuned_away or (pairs and 2 * effect.diverged >= pairs):
        return "not reproduced"
    if effect.n < 2:
        return "undecided"
    if comparison.within is not None:
        if effect.low > -comparison.within and not effect.diverged:
            return "reproduced"
        return "reversed" if effect.high < -comparison.within else "undecided"
    margin, published = comparison.margin, comparison.published
    if -margin <= effect.low and effect.high <= margin:
        return "not reproduced"
    if effect.high < 0 and p <= rule.alpha and not effect.baseline_diverged:
        return "reversed" if there is None or there.low > 0 else "not reproduced"
    needed = margin if published is None else rule.share * published
    if effect.low > 0 and p <= rule.alpha and effect.mean >= needed and not effect.diverged:
        return "reproduced" if reached else "not reproduced"
    if effect.high < (margin if published is None else published):
        return "not reproduced"
    return "undecided"
