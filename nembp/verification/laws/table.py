"""The table of laws: every one that `nembp verify` tries, by name."""

from __future__ import annotations

from nembp.verification.laws import ends, hidden, noise, signals, synapses, training
from nembp.verification.laws import over_cases as on
from nembp.verification.laws import over_synapses as forms
from nembp.verification.laws.deviations import CENTRAL, COMPLEX
from nembp.verification.laws.law import Law, tolerances

__all__ = ["LAWS"]

BP = "Adigun and Kosko 2019, section 3: backprop invariance"
BBP = "Adigun and Kosko 2019: bidirectional backpropagation"
NEM = "Audhkhasi, Osoba and Kosko 2016, theorems 1-3"
NORM = "Ioffe and Szegedy 2015, algorithms 1 and 2"
DESIGN = "nembp's definition"
EXACT = {"float64": 0.0, "float32": 0.0}

_TABLE = (
    Law("synapse.trilinear", "⟨forward(x), y⟩ = ⟨x, adjoint(y)⟩ = ⟨W, weight_gradient(x, y)⟩",
        "∂T/∂y, ∂T/∂x, ∂T/∂W of T(x, W, y) = ⟨x·W, y⟩", forms.of_synapses(synapses.trilinear)),
    Law("synapse.definition", "each is a product with M(W), written out pixel by pixel",
        DESIGN, forms.of_synapses(synapses.definition)),
    Law("synapse.transposed", "Transposed swaps forward and adjoint over the same W",
        BBP, forms.of_synapses(synapses.transposed), EXACT),
    Law("synapse.no-memory", "results depend on x, W and y, not on calls before",
        DESIGN, forms.forgetful, every=3),
    Law("synapse.threads", "calls of two threads do not meet",
        DESIGN, forms.of_synapses(synapses.reentrant), every=10),
    Law("synapse.links", "a step's links compute forward, adjoint and weight_gradient",
        "Lavin and Gray 2016; nembp's definition", forms.linked, every=5),
    Law("activation.derivative", "multiply_derivative(e, a) = e ∘ f'(z), a = f(z)",
        "Squire and Trapp 1998: complex steps", on.derivative),
    Law("likelihood.definition", "a = link(z), log p(t) as written",
        DESIGN, on.at_ends(ends.definitions)),
    Law("likelihood.class-sums", "log p and error of a sum of targets = sums of log p and error",
        "exponential families", on.class_sums),
    Law("likelihood.gain", "Σ gain(n) = log p(t+n) − log p(t), slope = ∂gain/∂n",
        NEM, on.at_ends(ends.gains, noisy=True)),
    Law("invariance.slope", "error = −∂log p/∂z at each end, by complex steps",
        BP, on.slopes_at_ends, tolerances(COMPLEX)),
    Law("invariance.update", "error = (a − t)·scale for proper targets; 1/v for the Gaussian",
        BP, on.at_ends(ends.classical_update)),
    Law("invariance.noisy-softmax", "a Σ(t+n) − (t+n) exact, a − (t+n) published",
        NEM, on.noisy_softmax),
    Law("gradient.complex-steps", "∇(−mean log p) of each direction = Im f(θ + ih)/h",
        BBP, on.slopes("complex"), tolerances(COMPLEX)),
    Law("gradient.central-differences", "∇(−mean log p) = (f(θ + h) − f(θ − h))/2h",
        BBP, on.slopes("central"), tolerances(CENTRAL), every=3),
    Law("gradient.classical", "gradient = classical backpropagation, written out",
        BP, on.chain_rule),
    Law("gradient.input-error", "input error = ∂(−mean log p)/∂x",
        BBP, on.slopes("complex", of_input=True), tolerances(COMPLEX)),
    Law("joint.samples", "joint gradient = ∇ forward + ∇ backward, a row a sample",
        BBP, on.joint_by("samples")),
    Law("joint.classes", "joint gradient = ∇ forward + ∇ backward, a row a class",
        BBP, on.joint_by("classes")),
    Law("joint.none", "without the backward direction: ∇ forward, its biases alone",
        DESIGN, on.joint_by("none")),
    Law("joint.blocks", "rows in blocks on three threads give the same joint gradient",
        DESIGN, forms.in_blocks),
    Law("joint.nll", "the nll that a step records = −mean log p of the clean targets",
        DESIGN, on.recorded),
    Law("joint.no-memory", "a step depends on its batch and parameters alone",
        DESIGN, on.memory, EXACT),
    Law("joint.noisy", "noisy joint gradient = backpropagation on the noisy targets",
        NEM, on.noisy_joint),
    Law("normalization.statistics", "a step moves r to (1 − m) r + m (μ, σ² N/(N − 1))",
        NORM, on.moving_statistics),
    Law("normalization.evaluation", "by running statistics each row is by itself; its gradient",
        NORM, on.evaluation),
    Law("noise.screening", "NEM: gain ≥ 0; anti: gain ≤ 0; blind: every draw",
        NEM, on.with_noise(noise.screening, lambda likelihood, spec: spec)),
    Law("noise.component", "each nᵢ² ≤ 2nᵢ(aᵢ − tᵢ) implies log p(t+n) ≥ log p(t)",
        NEM, on.with_noise(noise.component_implies_whole, on.component)),
    Law("noise.reflection", "n or −n passes every half-space",
        NEM, on.with_noise(noise.reflection, on.reflected)),
    Law("noise.annealing", "σₜ = σ₀ / tᵈ, t in epochs or iterations",
        DESIGN, on.annealed),
    Law("noise.zero-sum", "Σ n = 0 on softmax targets",
        DESIGN, on.with_noise(noise.zero_sum, on.balanced)),
    Law("noise.signals", "on signals: log p(t|aᵏ+n) − log p(t|aᵏ) ≥ 0 for NEM, ≤ 0 for anti",
        NEM, signals.screening),
    Law("noise.signal-gradient", "on signals: joint gradient = ∇(−mean log p(t|aᵏ+n)), n fixed",
        NEM, signals.gradients),
    Law("network.views", "net.reversed.reversed is net; both are views of one vector",
        BBP, on.views, EXACT),
    Law("network.copies", "a copy shares no memory, and is the same network",
        DESIGN, on.copies, every=3),
    Law("optimizer.formula", "SGD, momentum, RMSProp, Adam = their papers",
        "Polyak 1964; Tieleman and Hinton 2012; Kingma and Ba 2015", on.optimizer),
    Law("optimizer.weight-decay", "θ_w ← (1 − ηλ) θ_w once a step, biases spared",
        "Loshchilov and Hutter 2019", on.weight_decay),
    Law("training.replay", "a training = its definition, replayed in NumPy",
        DESIGN, on.replayed, every=3),
    Law("training.streams", "noise of deviation 0 changes no bit of a training",
        DESIGN, training.silent_noise, EXACT, every=5),
    Law("files.round-trip", "load(save(net)) = net, bit for bit",
        DESIGN, on.round_trip, EXACT, every=5),
    Law("em.fisher", "∇ log p = ∇Q at Θₙ; log p = Q + H",
        "Fisher's identity", on.enumerated(hidden.fisher), tolerances(COMPLEX, COMPLEX)),
    Law("em.gem", "a GEM step never lowers log p",
        "Dempster, Laird and Rubin 1977, theorem 1", on.enumerated(hidden.gem),
        tolerances(single=1e-12), every=3),
    Law("em.nem", "E[log p(y+n, h|x)/p(y, h|x)] ≥ 0 for NEM noise",
        "Osoba, Mitaim and Kosko 2013, theorem 1", on.enumerated(hidden.nem),
        tolerances(single=1e-12), every=3),
    Law("device.agreement", "the device computes the host's numbers",
        DESIGN, on.on_device, on_host=False),
)  # fmt: skip

LAWS = {law.name: law for law in _TABLE}
