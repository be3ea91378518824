// A convolution's three contractions as implicit products (tiles.cu): windows are gathered into
// shared memory slab by slab and never written out (nembp.implicit). Images N, H, W, C without
// padding, kernels W[i, j, c, k], upper images y[n, p, q, k]; pixel (i, j) of window (n, p, q) is
// pixel (s p + i - top, t q + j - left) of image n below, and zero outside of it.
//
//               m          n   k (summed)   A(m, k)                                 B(n, k)
//   forward     (n, p, q)  k   (i, j, c)    x[n, s p + i - top, t q + j - left, c]  W[i, j, c, k]
//   gradient    (i, j, c)  k   (n, p, q)    the same, turned                        y[n, p, q, k]
//   adjoint     (n, Y, X)  c   (a, b, k)    y[n, P - a, Q - b, k]                   W[i, j, c, k]
//
// Pixel Y lies in the windows p with Y + top = s p + i, 0 <= i < kernel_h. So the adjoint works on
// pixels in s t phases: those with Y + top = s P + phase have the taps i = phase + s a, p = P - a, a
// dense sum; likewise along X. Where a phase has no taps its pixels are 0.
//
// Where the tiles are too few for a GPU, k is split: every part has a copy of `out` of its own, and
// sum_parts (or, of many, column_sums) adds them up in an order that is always the same.

struct Shape {
    int images, height, width, channels, kernel_h, kernel_w, stride_h, stride_w, top, left;
    int rows, columns, upper;
    __device__ int window() const { return kernel_h * kernel_w * channels; }
    __device__ int windows() const { return images * rows * columns; }
};

// x by windows (outer) and their pixels (inner), or TURNED
template <bool TURNED> struct Windows {
    static constexpr bool along_inner = !TURNED;
    const real* data;
    Shape s;
    Divisor by_rows, by_columns, by_channels, by_kernel_w;
    __device__ Windows(const real* x, const Shape& s)
        : data(x), s(s), by_rows(s.rows), by_columns(s.columns), by_channels(s.channels),
          by_kernel_w(s.kernel_w) {}
    __device__ Place window(int r) const {
        int p, q;
        const int n = by_rows.divide(by_columns.divide(r, q), p);
        const int y = s.stride_h * p - s.top, x = s.stride_w * q - s.left;
        return {((n * s.height + y) * s.width + x) * s.channels, y, x, r * s.upper};
    }
    __device__ Place pixel(int r) const {
        int c, j;
        const int i = by_kernel_w.divide(by_channels.divide(r, c), j);
        return {(i * s.width + j) * s.channels + c, i, j, r * s.upper};
    }
    __device__ Place outer(int r) const {
        if (r >= (TURNED ? s.window() : s.windows())) return NOWHERE;
        return TURNED ? pixel(r) : window(r);
    }
    __device__ Place inner(int r) const { return TURNED ? window(r) : pixel(r); }
    __device__ bool inside(int y, int x) const {
        return ((unsigned int)y < (unsigned int)s.height) & ((unsigned int)x < (unsigned int)s.width);
    }
};

// A matrix that lies in memory: columns (outer) by rows (inner)
struct Matrix {
    static constexpr bool along_inner = false;
    const real* data;
    int columns;
    __device__ Place outer(int n) const { return n < columns ? Place{n, 0, 0, 0} : NOWHERE; }
    __device__ Place inner(int k) const { return {k * columns, 0, 0, 0}; }
    __device__ bool inside(int y, int) const { return y == 0; }
};

// One phase of the adjoint, along both axes
struct Phase {
    int i, j;                   // its first tap
    int taps_h, taps_w;
    int P, Q;                   // of its first pixel
    int pixels_h, pixels_w;     // in an image
    __device__ Phase(const Shape& s, int phase) : i(phase / s.stride_w), j(phase % s.stride_w) {
        axis(i, s.kernel_h, s.stride_h, s.top, s.height, taps_h, P, pixels_h);
        axis(j, s.kernel_w, s.stride_w, s.left, s.width, taps_w, Q, pixels_w);
    }
    __device__ static void axis(int tap, int kernel, int stride, int padding, int size, int& taps,
                                int& first, int& pixels) {
        taps = tap < kernel ? (kernel - tap + stride - 1) / stride : 0;
        first = padding > tap ? (padding - tap + stride - 1) / stride : 0;
        const int pixel = stride * first + tap - padding;
        pixels = pixel < size ? (size - pixel + stride - 1) / stride : 0;
    }
};

// y by pixels below (outer) and the taps that lead to them (inner)
struct Errors {
    static constexpr bool along_inner = true;
    const real* data;
    Shape s;
    Phase phase;
    Divisor by_h, by_w, by_upper, by_taps_w;
    __device__ Errors(const real* y, const Shape& s, const Phase& phase)
        : data(y), s(s), phase(phase), by_h(phase.pixels_h), by_w(phase.pixels_w),
          by_upper(s.upper), by_taps_w(phase.taps_w) {}
    __device__ Place outer(int r) const {
        if (r >= s.images * phase.pixels_h * phase.pixels_w) return NOWHERE;
        int P, Q;
        const int n = by_h.divide(by_w.divide(r, Q), P);
        P += phase.P;
        Q += phase.Q;
        const int y = s.stride_h * P + phase.i - s.top, x = s.stride_w * Q + phase.j - s.left;
        return {((n * s.rows + P) * s.columns + Q) * s.upper, P, Q,
                ((n * s.height + y) * s.width + x) * s.channels};
    }
    __device__ Place inner(int r) const {
        int k, b;
        const int a = by_taps_w.divide(by_upper.divide(r, k), b);
        return {k - (a * s.columns + b) * s.upper, -a, -b, 0};
    }
    __device__ bool inside(int p, int q) const {
        return ((unsigned int)p < (unsigned int)s.rows) & ((unsigned int)q < (unsigned int)s.columns);
    }
};

// W by channels below (outer) and a phase's taps (inner)
struct Kernels {
    static constexpr bool along_inner = true;
    const real* data;
    Shape s;
    Phase phase;
    Divisor by_upper, by_taps_w;
    __device__ Kernels(const real* W, const Shape& s, const Phase& phase)
        : data(W), s(s), phase(phase), by_upper(s.upper), by_taps_w(phase.taps_w) {}
    __device__ Place outer(int c) const {
        return c < s.channels ? Place{c * s.upper, 0, 0, 0} : NOWHERE;
    }
    __device__ Place inner(int r) const {
        int k, b;
        const int a = by_taps_w.divide(by_upper.divide(r, k), b);
        const int i = phase.i + s.stride_h * a, j = phase.j + s.stride_w * b;
        return {(i * s.kernel_w + j) * s.channels * s.upper + k, 0, 0, 0};
    }
    __device__ bool inside(int y, int) const { return y == 0; }
};

// Part `part` of `parts` of a sum over k < count: whole slabs, as many in each but the last ones
__device__ void share_of(int part, int parts, int count, int& begin, int& end) {
    const int slabs = (count + DEPTH - 1) / DEPTH, each = (slabs + parts - 1) / parts * DEPTH;
    begin = part * each < count ? part * each : count;
    end = count - begin < each ? count : begin + each;
}

// out: as many copies as parts. grid: tiles of m, tiles of n, parts (of the adjoint: times phases)
#define SIZES                                                                                      \
    int parts, int wide, int images, int height, int width, int channels, int kernel_h,            \
        int kernel_w, int stride_h, int stride_w, int top, int left, int rows, int columns,        \
        int upper
#define SHAPE                                                                                      \
    const Shape s = {images, height, width, channels, kernel_h, kernel_w, stride_h, stride_w,      \
                     top, left, rows, columns, upper};                                             \
    int begin, end

// threads of a block, and how many blocks a multiprocessor shall have room for: 12 warps, which
// leaves a thread 168 registers (of float64, 8 warps)
#ifdef NEMBP_DOUBLE
#define ROOM 256
#else
#define ROOM 384
#endif
#define LIMITS(BM, BN, TN) __launch_bounds__(BM * BN / (8 * TN), ROOM * 8 * TN / (BM * BN))

#define CONTRACTIONS(BM, BN, TN)                                                                   \
    extern "C" __global__ void LIMITS(BM, BN, TN) \
        forward_##BM##x##BN(const real* x, const real* W, real* out, SIZES) {                      \
        SHAPE;                                                                                     \
        share_of(blockIdx.z, parts, s.window(), begin, end);                                       \
        out += (count_t)blockIdx.z * s.windows() * s.upper;                                        \
        contract<BM, BN, TN>(Windows<false>(x, s), Matrix{W, s.upper}, begin, end, s.upper, wide,  \
                             out);                                                                 \
    }                                                                                              \
    extern "C" __global__ void LIMITS(BM, BN, TN) \
        gradient_##BM##x##BN(const real* x, const real* y, real* out, SIZES) {                     \
        SHAPE;                                                                                     \
        share_of(blockIdx.z, parts, s.windows(), begin, end);                                      \
        out += (count_t)blockIdx.z * s.window() * s.upper;                                         \
        contract<BM, BN, TN>(Windows<true>(x, s), Matrix{y, s.upper}, begin, end, s.upper, wide,   \
                             out);                                                                 \
    }                                                                                              \
    extern "C" __global__ void LIMITS(BM, BN, TN) \
        adjoint_##BM##x##BN(const real* y, const real* W, real* out, SIZES) {                      \
        SHAPE;                                                                                     \
        const Phase phase(s, blockIdx.z / parts);                                                  \
        if ((int)blockIdx.x * BM >= s.images * phase.pixels_h * phase.pixels_w) return;            \
        const int part = blockIdx.z % parts;                                                       \
        share_of(part, parts, phase.taps_h * phase.taps_w * s.upper, begin, end);                  \
        out += (count_t)part * s.images * s.height * s.width * s.channels;                         \
        contract<BM, BN, TN>(Errors(y, s, phase), Kernels(W, s, phase), begin, end, s.channels,    \
                             wide, out);                                                           \
    }

CONTRACTIONS(128, 64, 8)
CONTRACTIONS(64, 64, 8)
CONTRACTIONS(128, 32, 8)
CONTRACTIONS(64, 32, 4)
CONTRACTIONS(128, 8, 2)

// out[i] = parts[0][i] + parts[1][i] + ...
extern "C" __global__ void sum_parts(const real* parts, int count, count_t n, real* out) {
    EACH(i, n) {
        real sum = parts[i];
#pragma unroll 8
        for (int k = 1; k < count; k++) sum += parts[k * n + i];
        out[i] = sum;
    }
}
