// Optimizers: each reads and writes its vectors once (nembp.engine.optimizers).
//
// Decoupled decay: the first `weights` parameters are multiplied by `keep` = 1 - eta lambda before
// the update. The numbers of a step are arguments, or lie on the device (`numbers` not null) as
// {keep, eta, epsilon} where a captured step has to find those of its own turn.

#define NUMBERS                  \
    if (numbers) {               \
        keep = numbers[0];       \
        eta = numbers[1];        \
        epsilon = numbers[2];    \
    }                            \
    const real decay = (real)keep, rate = (real)eta, small = (real)epsilon

extern "C" __global__ void sgd(real* theta, const real* g, int n, int weights,
                               const double* numbers, double keep, double eta, double epsilon) {
    NUMBERS;
    (void)small;
    EACH(i, n) theta[i] = (i < weights ? decay * theta[i] : theta[i]) - rate * g[i];
}

extern "C" __global__ void momentum(real* theta, const real* g, real* velocity, int n,
                                    int weights, real mu, const double* numbers, double keep,
                                    double eta, double epsilon) {
    NUMBERS;
    (void)small;
    EACH(i, n) {
        const real v = mu * velocity[i] + g[i];
        velocity[i] = v;
        theta[i] = (i < weights ? decay * theta[i] : theta[i]) - rate * v;
    }
}

extern "C" __global__ void rmsprop(real* theta, const real* g, real* square, int n,
                                   int weights, real rho, real rest, const double* numbers,
                                   double keep, double eta, double epsilon) {
    NUMBERS;
    EACH(i, n) {
        const real s = rho * square[i] + rest * (g[i] * g[i]);
        square[i] = s;
        theta[i] = (i < weights ? decay * theta[i] : theta[i]) - rate * (g[i] / (SQRT(s) + small));
    }
}

// M = beta1 M + g, V = beta2 V + g^2: eta and epsilon hold the bias corrections
extern "C" __global__ void adam(real* theta, const real* g, real* first, real* second, int n,
                                int weights, real beta1, real beta2, const double* numbers,
                                double keep, double eta, double epsilon) {
    NUMBERS;
    EACH(i, n) {
        const real M = beta1 * first[i] + g[i], V = beta2 * second[i] + g[i] * g[i];
        first[i] = M;
        second[i] = V;
        theta[i] = (i < weights ? decay * theta[i] : theta[i]) - rate * (M / (SQRT(V) + small));
    }
}
