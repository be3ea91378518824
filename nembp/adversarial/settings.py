"""What an adversarial training is: its objective, and which directions are trained.

======================= ==================================== ====================================
``bidirectional``       trained backward                     backward targets
======================= ==================================== ====================================
``none``                nothing                              none
``discriminator``       D: label → x                         the real samples of that label
``generator``           G: x → z                             the z behind each generated sample
``both``                both                                 both
======================= ==================================== ====================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args, get_origin, get_type_hints

from nembp.errors import ArchitectureError

KNEE, LEFT = 7 / 8, 0.2  # where a geometric schedule turns to a straight line, and what is left
RISE = 0.1  # share of the training in which a weight rises

Kind = Literal["vanilla", "minimax", "wasserstein", "wasserstein-gp"]
Bidirectional = Literal["none", "discriminator", "generator", "both"]
WeightSchedule = Literal["constant", "linear", "cosine", "geometric", "rise"]
NoiseSchedule = Literal["power", "linear", "cosine", "geometric"]
BackwardLabels = Literal["real", "both"]
LatentLaw = Literal["gaussian", "binary"]


@dataclass(frozen=True)
class AdversarialSettings:
    """Options of an adversarial training, apart from networks, batches and optimizers.

    Parameters
    ----------
    kind : {"vanilla", "minimax", "wasserstein", "wasserstein-gp"}
        D climbs E log D(x) + E log(1 − D(G(z))) in the first two; G climbs E log D(G(z)) (vanilla,
        the non-saturating objective) or descends E log(1 − D(G(z))) (minimax) (Goodfellow and
        others 2014). A Wasserstein critic f climbs E f(x) − E f(G(z)), kept Lipschitz by clipping
        its parameters to ``clip`` (Arjovsky, Chintala, Bottou 2017) or by the penalty λ (‖∇ₓ f(x̂)‖
        − 1)², λ = ``penalty_weight`` (Gulrajani and others 2017); G climbs E f(G(z)).
    bidirectional : {"none", "discriminator", "generator", "both"}
        Which networks are trained in both directions.
    discriminator_weight, generator_weight : float
        What multiplies the log-likelihood of D's and of G's backward direction: for a Gaussian of
        variance 1, the precision 1/v.
    weight_schedule, weight_until : {"constant", "linear", "cosine", "geometric", "rise"}, float
        Of both weights over the training (:func:`schedule_factor`), and the share of it, 0 < u ≤ 1,
        after which a schedule that falls is 0.
    noise_schedule, noise_until : {"power", "linear", "cosine", "geometric"}, float
        The same for the standard deviation of all noise; ``power`` is the noise's own σ₀ / tᵈ.
    backward_labels : {"real", "both"}
        Labels of D that have a backward target: the real one (or the K classes) alone, or also
        the label of generated samples, whose targets are these, held fixed.
    backward_flow : bool
        Let the gradient of log p(z | G(z)) flow into G(z) too, instead of holding it fixed.
    backward_permuted : bool
        Control: backward targets that mean nothing. D's have their values permuted, the same way
        in every step; G's are another sample's z.
    latent_law, latent_std : {"gaussian", "binary"}, float
        z ~ N(0, σ² I), in whose own units the generator's weight is a precision, or bits, 0 or 1
        with probability ½ each, whose backward direction in G is Bernoulli
        (:func:`nembp.adversarial.data.fill_latent`).
    classes : int
        Number K of real classes, for a discriminator with K+1 of them; 0 for a single output.
    critic_steps : int, optional
        Steps of D for each one of G: 5 for a Wasserstein critic and 1 otherwise, if left out.
    averaging : float
        0 ≤ β < 1: samples are drawn by Σ (1 − β) βⁱ θₜ₋ᵢ, the moving average of G's parameters;
        by the last ones if 0.

    >>> AdversarialSettings("wasserstein").steps
    5
    """

    kind: Kind = "vanilla"
    bidirectional: Bidirectional = "none"
    discriminator_weight: float = 0.01
    generator_weight: float = 1.0
    weight_schedule: WeightSchedule = "constant"
    weight_until: float = 1.0
    noise_schedule: NoiseSchedule = "power"
    noise_until: float = 1.0
    backward_labels: BackwardLabels = "real"
    backward_flow: bool = False
    backward_permuted: bool = False
    latent_law: LatentLaw = "gaussian"
    classes: int = 0
    critic_steps: int | None = None
    clip: float = 0.01
    penalty_weight: float = 10.0
    latent_std: float = 1.0
    averaging: float = 0.0

    def __post_init__(self) -> None:
        fits: dict[str, tuple[bool, str]] = {
            "critic_steps": (self.steps >= 1, "at least 1"),
            "averaging": (0.0 <= self.averaging < 1.0, "at least 0 and less than 1"),
            "classes": (self.classes == 0 or self.classes >= 2, "0, for one output, or at least 2"),
        }
        weights = "discriminator_weight", "generator_weight", "penalty_weight"
        for name in (*weights, "clip", "latent_std"):
            fits[name] = 0.0 < getattr(self, name) < math.inf, "a positive, finite number"
        for name in ("weight_until", "noise_until"):
            fits[name] = 0.0 < getattr(self, name) <= 1.0, "above 0 and at most 1"
        for name, hint in get_type_hints(type(self)).items():
            options = get_args(hint) if get_origin(hint) is Literal else ()
            if options:
                fits[name] = getattr(self, name) in options, f"one of {', '.join(options)}"
        for name, (fit, expected) in fits.items():
            if not fit:
                label, value = name.replace("_", " "), getattr(self, name)
                raise ArchitectureError(f"adversarial {label} must be {expected}, got {value!r}")
        if self.classes and self.has_critic:
            raise ArchitectureError(
                f"a {self.kind} critic has one output and no classes, got classes {self.classes}; "
                "use kind vanilla or minimax, or classes 0"
            )

    @property
    def has_critic(self) -> bool:
        """Whether D is a Wasserstein critic, whose output is a score."""
        return self.kind in ("wasserstein", "wasserstein-gp")

    @property
    def steps(self) -> int:
        """Steps of D for each one of G."""
        return (5 if self.has_critic else 1) if self.critic_steps is None else self.critic_steps

    @property
    def discriminator_backward(self) -> bool:
        """Whether D is trained backward too."""
        return self.bidirectional in ("discriminator", "both")

    @property
    def generator_backward(self) -> bool:
        """Whether G is trained backward too."""
        return self.bidirectional in ("generator", "both")


def schedule_factor(name: str, share: float, until: float = 1.0) -> float:
    """Return a factor at the share 0 ≤ s ≤ 1 of a training, with r = min(1, s / until).

    ``constant``: 1; ``linear``: 1 − r; ``cosine``: (1 + cos πr)/2; ``geometric``: to a fifth by
    r = 7/8 in equal ratios, then on a line to 0; ``rise``: min(1, 10 s).

    >>> schedule_factor("linear", 0.25, until=0.5), schedule_factor("geometric", 1.0)
    (0.5, 0.0)
    """
    r = min(1.0, share / until)
    if name == "linear":
        return 1.0 - r
    if name == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * r))
    if name == "geometric":
        return math.pow(LEFT, r / KNEE) if r < KNEE else LEFT * (1.0 - r) / (1.0 - KNEE)
    return min(1.0, share / RISE) if name == "rise" else 1.0
