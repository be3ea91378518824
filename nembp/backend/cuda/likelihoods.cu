// A direction's output: activation and log-likelihood in one pass over a row, and the error
// (nembp.engine.likelihoods). One block a row, blockDim.x a power of two, at most THREADS.

#define MULTINOMIAL 0
#define GAUSSIAN 1
#define BERNOULLI 2
#define BIPOLAR 3

// a = f(z), and log p(t) of each row. For a multinomial z becomes log a.
// scale: the tempering weight, or the Gaussian's precision 1/v. normalizer: (d/2) log 2 pi v.
// counts, squares: null, or what a row of t sums (targets, their squared norms), one a row.
extern "C" __global__ void output_and_score(real* z, real* a, const real* t, const real* counts,
                                          const real* squares, real* log_p, int width, int kind,
                                          real scale, real normalizer) {
    __shared__ real shared[THREADS];
    const count_t row = (count_t)blockIdx.x * width;
    z += row;
    a += row;
    const real samples = counts ? counts[blockIdx.x] : (real)1;
    real shift = 0;
    if (kind == MULTINOMIAL) {
        real most = z[0];
        for (int j = threadIdx.x; j < width; j += blockDim.x) most = z[j] > most ? z[j] : most;
        most = block_max(most, shared);
        real sum = 0;
        for (int j = threadIdx.x; j < width; j += blockDim.x) sum += EXP(z[j] - most);
        shift = most + LOG(block_sum(sum, shared));
    }
    real sum = 0;
    for (int j = threadIdx.x; j < width; j += blockDim.x) {
        const real target = t[row + j];
        real x = z[j];
        if (kind == MULTINOMIAL) {
            x -= shift;
            z[j] = x;
            a[j] = EXP(x);
            sum += target * x;
        } else if (kind == GAUSSIAN) {
            a[j] = x;
            // without counts the difference first: no cancellation
            sum += counts ? x * (samples * x - 2 * target) : (target - x) * (target - x);
        } else if (kind == BIPOLAR) {
            a[j] = TANH(x);  // log 2 cosh x = |x| + log(1 + e^(-2|x|))
            sum += target * x - samples * (FABS(x) + LOG1P(EXP(-2 * FABS(x))));
        } else {
            a[j] = (real)0.5 * TANH((real)0.5 * x) + (real)0.5;
            sum += target * x - samples * ((x > 0 ? x : (real)0) + LOG1P(EXP(-FABS(x))));
        }
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) {
        if (kind == GAUSSIAN) {
            const real norms = squares ? sum + squares[blockIdx.x] : sum;
            log_p[blockIdx.x] = (real)-0.5 * scale * norms - samples * normalizer;
        } else {
            log_p[blockIdx.x] = scale * sum;
        }
    }
}

// out = factor * (counts * a - t); counts: 1 where null, or the row's sum of t where own_counts
extern "C" __global__ void output_error(const real* a, const real* t, const real* counts, real* out,
                                       int width, int own_counts, real factor) {
    __shared__ real shared[THREADS];
    const count_t row = (count_t)blockIdx.x * width;
    real samples = counts ? counts[blockIdx.x] : (real)1;
    if (own_counts) {
        real sum = 0;
        for (int j = threadIdx.x; j < width; j += blockDim.x) sum += t[row + j];
        samples = block_sum(sum, shared);
    }
    for (int j = threadIdx.x; j < width; j += blockDim.x)
        out[row + j] = factor * (samples * a[row + j] - t[row + j]);
}

// out[row] = sum of squares of the row
extern "C" __global__ void row_squares(const real* x, int width, real* out) {
    __shared__ real shared[THREADS];
    const count_t row = (count_t)blockIdx.x * width;
    real sum = 0;
    for (int j = threadIdx.x; j < width; j += blockDim.x) sum += x[row + j] * x[row + j];
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

// Block k: counts[k] = sum of members[., k]; sums[k] = that of members[., k] * column[.],
// unless column is null
extern "C" __global__ void count_classes(const real* members, const real* column, int rows,
                                        int classes, real* counts, real* sums) {
    __shared__ real shared[THREADS];
    real count = 0, sum = 0;
    for (count_t i = threadIdx.x; i < rows; i += blockDim.x) {
        const real member = members[i * classes + blockIdx.x];
        count += member;
        if (column) sum += member * column[i];
    }
    count = block_sum(count, shared);
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) {
        counts[blockIdx.x] = count;
        if (column) sums[blockIdx.x] = sum;
    }
}
