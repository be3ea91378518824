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

    D climbs E log D(x) + E log(1 − D(G(z))); G climbs E log D(G(z)) (kind vanilla, the
    non-saturating objective) or descends E log(1 − D(G(z))) (minimax) (Goodfellow and others 2014).
    A Wasserstein critic f climbs E f(x) − E f(G(z)), kept Lipschitz by clipping its parameters to
    ``clip`` (Arjovsky, Chintala, Bottou 2017) or by λ (‖∇ₓ f(x̂)‖ − 1)², λ = ``penalty_weight``
    (Gulrajani and others 2017); G climbs E f(G(z)).

    >>> AdversarialSettings("wasserstein").steps
    5
    """

    kind: Kind = "vanilla"
    bidirectional: Bidirectional = "none"  # which networks are trained in both directions
    # of the backward log-likelihoods: of a Gaussian of variance 1, the precision 1/v
    discriminator_weight: float = 0.01
    generator_weight: float = 1.0
    # of both, by `schedule_factor`; a schedule that falls is 0 after the share u, 0 < u ≤ 1
    weight_schedule: WeightSchedule = "constant"
    weight_until: float = 1.0
    # the same for the standard deviation of all noise; power is the noise's own σ₀ / tᵈ
    noise_schedule: NoiseSchedule = "power"
    noise_until: float = 1.0
    # labels of D with a backward target: the real one (or the K classes), or the generated
    # samples' too, whose targets are these, held fixed
    backward_labels: BackwardLabels = "real"
    backward_flow: bool = False  # the gradient of log p(z | G(z)) flows into G(z) too
    # control: D's backward targets have their values permuted, the same way in every step, and G's
    # are another sample's z
    backward_permuted: bool = False
    # z ~ N(0, σ² I), or bits, of which G's backward direction is Bernoulli (`data.fill_latent`)
    latent_law: LatentLaw = "gaussian"
    classes: int = 0  # K real classes, for a D with K + 1; 0 for a single output
    critic_steps: int | None = None  # steps of D for each one of G; 5 of a critic, else 1
    clip: float = 0.01
    penalty_weight: float = 10.0
    latent_std: float = 1.0  # σ: the generator's weight is a precision in z's own units
    averaging: float = 0.0  # β of Σ (1 − β) βⁱ θₜ₋ᵢ, by which samples are drawn

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
