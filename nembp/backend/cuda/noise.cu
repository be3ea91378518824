// Noise: counter-based draws, and their screening in the same pass (nembp.engine.noise).
//
// Philox 4x32-10 (Salmon, Moraes, Dror, Shaw 2011) turns a key and a counter into four random
// words. The counter is the element's place and the number of the call, so the numbers of a seed
// are the same whatever the launch's geometry. state = {key, number of the next call}.

#define NORMAL 0
#define UNIFORM 1

__device__ void philox(word64 key, word64 place, word64 call, unsigned int* w) {
    unsigned int k0 = (unsigned int)key, k1 = (unsigned int)(key >> 32);
    w[0] = (unsigned int)place;
    w[1] = (unsigned int)(place >> 32);
    w[2] = (unsigned int)call;
    w[3] = (unsigned int)(call >> 32);
    for (int round = 0; round < 10; round++) {
        const unsigned int high0 = __umulhi(0xD2511F53u, w[0]), low0 = 0xD2511F53u * w[0];
        const unsigned int high1 = __umulhi(0xCD9E8D57u, w[2]), low1 = 0xCD9E8D57u * w[2];
        w[0] = high1 ^ w[1] ^ k0;
        w[1] = low1;
        w[2] = high0 ^ w[3] ^ k1;
        w[3] = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

// two words as a number in [0, 1), in all the bits that `real` has
__device__ real unit(unsigned int high, unsigned int low) {
#ifdef NEMBP_DOUBLE
    return ((high >> 5) * 67108864.0 + (low >> 6)) * (1.0 / 9007199254740992.0);
#else
    (void)low;
    return (high >> 8) * (1.0f / 16777216.0f);
#endif
}

#ifdef NEMBP_DOUBLE
#define PER_CALL 2  // numbers from four words
#define LEAST (1.0 / 9007199254740992.0)
#else
#define PER_CALL 4
#define LEAST (1.0f / 16777216.0f)
#endif

// the number of one element: N(0, 1) by Box and Muller, or uniform on [0, 1)
__device__ real draw(word64 element, word64 key, word64 call, int law) {
    unsigned int w[4];
    philox(key, element / PER_CALL, call, w);
#ifdef NEMBP_DOUBLE
    const bool second = element % 2;
    const real first_unit = unit(w[0], w[1]), second_unit = unit(w[2], w[3]);
    if (law == UNIFORM) return second ? second_unit : first_unit;
#else
    const unsigned int lane = (unsigned int)(element % 4);
    const bool second = lane % 2, later = lane >= 2;
    const real first_unit = unit(later ? w[2] : w[0], 0), second_unit = unit(later ? w[3] : w[1], 0);
    if (law == UNIFORM) return second ? second_unit : first_unit;
#endif
    const real r = SQRT((real)-2 * LOG(first_unit + LEAST));
    const real angle = (real)6.283185307179586 * second_unit;
    return r * (second ? SIN(angle) : COS(angle));
}

extern "C" __global__ void fill_random(real* out, int n, const word64* state, int law) {
    EACH(i, n) out[i] = draw(i, state[0], state[1], law);
}

extern "C" __global__ void next_call(word64* state) {
    if (blockIdx.x == 0 && threadIdx.x == 0) state[1] += 1;
}

#define MULTIPLICATIVE 1
#define ZERO_SUM 2
#define COMPONENT 4
#define REFLECT 8
#define BLIND 16
#define ANTI 32
#define LINEAR 64  // the gain is scale * n * z; else (Gaussian) scale / 2 * n (2 (z - t) - n)

__device__ real gain_of(real n, real z, real t, real scale, bool linear) {
    return linear ? scale * n * z : (real)0.5 * scale * n * (2 * (z - t) - n);
}

// n = screened noise for target t. One block a row, blockDim.x a power of two, at most THREADS.
// z: pre-activation where LINEAR, else activation. of_rows: the share kept of each row, then the
// gain of each in nats.
// The standard deviation lies on the device, or (on_device null) is sigma.
extern "C" __global__ void draw_and_screen(real* n, const real* z, const real* t, real* of_rows,
                                           const word64* state, const double* on_device,
                                           double sigma, int width, int law, int how, real scale) {
    __shared__ real shared[THREADS];
    const count_t row = (count_t)blockIdx.x * width;
    const double std = on_device ? on_device[0] : sigma;
    const real spread = (real)(law == UNIFORM ? 3.4641016151377544 * std : std);
    const bool linear = how & LINEAR;
    const real sign = how & ANTI ? (real)-1 : (real)1;
    n += row;
    z += row;
    t += row;
    real sum = 0;
    for (int j = threadIdx.x; j < width; j += blockDim.x) {
        real x = draw(row + j, state[0], state[1], law);
        x = (law == UNIFORM ? x - (real)0.5 : x) * spread;
        if (how & MULTIPLICATIVE) x *= t[j];
        n[j] = x;
        sum += x;
    }
    if (how & ZERO_SUM) {
        const real mean = block_sum(sum, shared) / width;
        for (int j = threadIdx.x; j < width; j += blockDim.x) n[j] -= mean;
    }
    real flip = 1, keep = 1;  // of the whole row
    if (!(how & (BLIND | COMPONENT))) {
        for (int tries = 0; tries < 2; tries++) {
            real score = 0;
            for (int j = threadIdx.x; j < width; j += blockDim.x)
                score += gain_of(flip * n[j], z[j], t[j], scale, linear);
            keep = sign * block_sum(score, shared) >= 0 ? (real)1 : (real)0;
            if (tries == 0 && keep == 0 && how & REFLECT) flip = -1;
            else break;
        }
    }
    real total = 0, held = 0;
    for (int j = threadIdx.x; j < width; j += blockDim.x) {
        real x = flip * n[j], own = keep;
        if (!(how & BLIND) && how & COMPONENT) {
            own = sign * gain_of(x, z[j], t[j], scale, linear) >= 0 ? (real)1 : (real)0;
            if (own == 0 && how & REFLECT) {
                x = -x;
                own = sign * gain_of(x, z[j], t[j], scale, linear) >= 0 ? (real)1 : (real)0;
            }
        }
        x = own != 0 ? x : (real)0;
        n[j] = x;
        held += own;
        total += gain_of(x, z[j], t[j], scale, linear);
    }
    total = block_sum(total, shared);
    held = block_sum(held, shared);
    if (threadIdx.x == 0) {
        of_rows[blockIdx.x] = held / width;
        of_rows[gridDim.x + blockIdx.x] = total;
    }
}

// Means over the rows, and on to the next call of the stream; one block.
extern "C" __global__ void finish_noise(const real* of_rows, int rows, real* accepted,
                                        real* mean_gain, word64* state) {
    __shared__ real shared[THREADS];
    real held = 0, total = 0;
    for (count_t i = threadIdx.x; i < rows; i += blockDim.x) {
        held += of_rows[i];
        total += of_rows[rows + i];
    }
    held = block_sum(held, shared);
    total = block_sum(total, shared);
    if (threadIdx.x == 0) {
        accepted[0] = held / rows;
        mean_gain[0] = total / rows;
        state[1] += 1;
    }
}
