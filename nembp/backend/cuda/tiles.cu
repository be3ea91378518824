// An implicit matrix product, out[m, n] = sum over k of A(m, k) B(n, k), where A and B need not lie
// in memory as matrices: each says where its elements are (nembp.backend.implicit).
//
// A block of threads makes BM x BN results, DEPTH values of k at a time:
//
//               n: BN                       each thread: 8 x TN sums in registers, its rows in two
//             +---------+                   groups of 4, BM/2 apart, its columns in groups of up to
//   k: DEPTH  |  b[k,n] |  shared           4, so that a row of lanes reads neighbouring numbers of
//             +---------+                   shared memory, and lanes of one row the same ones
//   +--------++---------+
//   | a[k,m] ||  sums   |  m: BM            While a slab is multiplied, the next one is on its way
//   | shared ||         |                   from memory to registers; it is stored to the other of
//   +--------++---------+                   two buffers, so that a slab costs one barrier.
//
// Every sum runs over k upwards, whatever the tile: results do not depend on BM, BN and TN.

#ifdef NEMBP_DOUBLE
#define DEPTH 8
#define PACK 2
#else
#define DEPTH 16
#define PACK 4
#endif

struct alignas(16) Pack { real v[PACK]; };  // what one instruction loads or stores
template <int N> struct alignas(N == 2 ? 2 * sizeof(real) : 16) Group { real v[N]; };

// Half of an element's place: element (m, k) of A is data[outer.at + inner.at] where
// (outer.y + inner.y, outer.x + inner.x) is inside of the image, and 0 elsewhere.
struct alignas(16) Place {
    int at, y, x;
    int to;  // of an m: where in `out` its results begin
};
#define NOWHERE Place{0, -(1 << 30), 0, -1}

// Quotient and remainder by a number that stays the same, of numbers below 2^31: with m the whole
// part of (2^32 - 1) / d the high word of n m is the quotient or one less.
struct Divisor {
    unsigned int d, m;
    __device__ explicit Divisor(int by) : d(by > 0 ? by : 1), m(0xFFFFFFFFu / d) {}
    __device__ int divide(int n, int& rest) const {
        unsigned int q = __umulhi((unsigned int)n, m), r = (unsigned int)n - q * d;
        if (r >= d) {
            q++;
            r -= d;
        }
        rest = (int)r;
        return (int)q;
    }
};

// A thread's share of the next slab of a source S with OUTER rows (m or n), in registers.
// S::along_inner: neighbouring k are neighbours in memory, else neighbouring m or n.
template <class S, int OUTER, int THREADS_> struct Share {
    static constexpr int PITCH = OUTER + PACK;
    static constexpr int TURNS = DEPTH / PACK / 2;  // of packs of a row, two at a time
    static constexpr int ROWS = THREADS_ / 2;       // rows of which a turn takes two packs each
    static constexpr int PACKS = S::along_inner ? (OUTER + ROWS - 1) / ROWS * TURNS
                                                : (OUTER * DEPTH / PACK + THREADS_ - 1) / THREADS_;
    static constexpr int SINGLES = (OUTER * DEPTH + THREADS_ - 1) / THREADS_;
    real v[PACKS * PACK > SINGLES ? PACKS * PACK : SINGLES];

    // Which pack of the slab is this thread's i-th. Along k a warp takes 16 rows, two packs of each:
    // whole sectors of memory, and their transposed stores meet in no bank.
    __device__ static bool pack(int i, int& o, int& k) {
        const int t = threadIdx.x;
        if constexpr (S::along_inner) {
            o = i / TURNS * ROWS + t / 32 * 16 + t % 16;
            k = PACK * (i % TURNS * 2 + t / 16 % 2);
            return OUTER % ROWS == 0 || o < OUTER;
        } else {
            o = PACK * ((i * THREADS_ + t) % (OUTER / PACK));
            k = (i * THREADS_ + t) / (OUTER / PACK);
            return OUTER * DEPTH / PACK % THREADS_ == 0 || k < DEPTH;
        }
    }
    // Which element, where packs do not fit.
    __device__ static bool single(int i, int& o, int& k) {
        const int t = threadIdx.x;
        if constexpr (S::along_inner) {
            o = i * (THREADS_ / DEPTH) + t / DEPTH;
            k = t % DEPTH;
        } else {
            o = (i * THREADS_ + t) % OUTER;
            k = (i * THREADS_ + t) / OUTER;
        }
        return OUTER * DEPTH % THREADS_ == 0 || (o < OUTER && k < DEPTH);
    }
    // Without branches, so that all loads are under way together.
    __device__ void fetch(const S& source, const Place* places, int begin, int end, bool packed) {
        int o, k;
        if (packed) {
#pragma unroll
            for (int i = 0; i < PACKS; i++) {
                const bool mine = pack(i, o, k);
                const Place outer = places[mine ? o : 0], inner = source.inner(begin + k);
                const bool there = mine & (begin + k < end) &
                                   source.inside(outer.y + inner.y, outer.x + inner.x);
                Pack found = {};
                if (there) found = *(const Pack*)(source.data + (outer.at + inner.at));
#pragma unroll
                for (int e = 0; e < PACK; e++) v[i * PACK + e] = found.v[e];
            }
        } else {
#pragma unroll
            for (int i = 0; i < SINGLES; i++) {
                const bool mine = single(i, o, k);
                const Place outer = places[mine ? o : 0], inner = source.inner(begin + k);
                const bool there = mine & (begin + k < end) &
                                   source.inside(outer.y + inner.y, outer.x + inner.x);
                v[i] = 0;
                if (there) v[i] = source.data[outer.at + inner.at];
            }
        }
    }
    __device__ void store(real (*shared)[PITCH], bool packed) const {
        int o, k;
        if (packed) {
#pragma unroll
            for (int i = 0; i < PACKS; i++) {
                if (!pack(i, o, k)) continue;
                if constexpr (S::along_inner) {
#pragma unroll
                    for (int e = 0; e < PACK; e++) shared[k + e][o] = v[i * PACK + e];
                } else {
                    Pack found;
#pragma unroll
                    for (int e = 0; e < PACK; e++) found.v[e] = v[i * PACK + e];
                    *(Pack*)&shared[k][o] = found;
                }
            }
        } else {
#pragma unroll
            for (int i = 0; i < SINGLES; i++)
                if (single(i, o, k)) shared[k][o] = v[i];
        }
    }
};

// sums += a slab's products
template <int BM, int BN, int TN>
__device__ void multiply(const real (*a)[BM + PACK], const real (*b)[BN + PACK],
                         real (&sums)[8][TN]) {
    constexpr int WIDTH = TN < 4 ? TN : 4, GROUPS = TN / WIDTH;
    const int tx = threadIdx.x % (BN / TN), ty = threadIdx.x / (BN / TN);
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
        Group<4> rows[2];
        Group<WIDTH> columns[GROUPS];
#pragma unroll
        for (int g = 0; g < 2; g++) rows[g] = *(const Group<4>*)&a[k][g * (BM / 2) + 4 * ty];
#pragma unroll
        for (int g = 0; g < GROUPS; g++)
            columns[g] = *(const Group<WIDTH>*)&b[k][g * (BN / GROUPS) + WIDTH * tx];
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
            for (int j = 0; j < TN; j++)
                sums[i][j] += rows[i / 4].v[i % 4] * columns[j / WIDTH].v[j % WIDTH];
    }
}

// wide: 1 where A has packs (elements side by side, at addresses of whole packs), 2 where B, 4 out
#define WIDE_A 1
#define WIDE_B 2
#define WIDE_OUT 4

// This block's tile of the product over k from begin to end, written to out[to(m) + n], n < columns
template <int BM, int BN, int TN, class A, class B>
__device__ void contract(const A& a, const B& b, int begin, int end, int columns, int wide,
                         real* out) {
    constexpr int ALL = BM * BN / (8 * TN);  // threads
    constexpr int WIDTH = TN < 4 ? TN : 4, GROUPS = TN / WIDTH;
    alignas(16) __shared__ real a_slab[2][DEPTH][BM + PACK];
    alignas(16) __shared__ real b_slab[2][DEPTH][BN + PACK];
    __shared__ Place a_places[BM], b_places[BN];
    const int t = threadIdx.x, m0 = blockIdx.x * BM, n0 = blockIdx.y * BN;
    const bool a_packed = wide & WIDE_A, b_packed = wide & WIDE_B;
    for (int i = t; i < BM; i += ALL) a_places[i] = a.outer(m0 + i);
    for (int i = t; i < BN; i += ALL) b_places[i] = b.outer(n0 + i);
    __syncthreads();

    Share<A, BM, ALL> a_share;
    Share<B, BN, ALL> b_share;
    real sums[8][TN] = {};
    a_share.fetch(a, a_places, begin, end, a_packed);
    b_share.fetch(b, b_places, begin, end, b_packed);
    a_share.store(a_slab[0], a_packed);
    b_share.store(b_slab[0], b_packed);
    __syncthreads();
    int now = 0;
    for (int k = begin; k < end; k += DEPTH) {
        const bool more = k + DEPTH < end;
        if (more) {
            a_share.fetch(a, a_places, k + DEPTH, end, a_packed);
            b_share.fetch(b, b_places, k + DEPTH, end, b_packed);
        }
        multiply<BM, BN, TN>(a_slab[now], b_slab[now], sums);
        now = 1 - now;
        if (more) {
            a_share.store(a_slab[now], a_packed);
            b_share.store(b_slab[now], b_packed);
        }
        __syncthreads();
    }

    const int tx = t % (BN / TN), ty = t / (BN / TN);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int to = a_places[i / 4 * (BM / 2) + 4 * ty + i % 4].to;
        if (to < 0) continue;
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
            const int n = n0 + g * (BN / GROUPS) + WIDTH * tx;
            Group<WIDTH> found;
#pragma unroll
            for (int j = 0; j < WIDTH; j++) found.v[j] = sums[i][g * WIDTH + j];
            if (wide & WIDE_OUT) {
                if (n < columns) *(Group<WIDTH>*)&out[to + n] = found;
            } else {
#pragma unroll
                for (int j = 0; j < WIDTH; j++)
                    if (n + j < columns) out[to + n + j] = found.v[j];
            }
        }
    }
}
