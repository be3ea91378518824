// A step's beginning: its numbers and its samples, found on the device.

// Take this step's row of `table` (steps, width) as `numbers`, and its `rows` entries of `order`,
// of which every step but the last has `batch`, as `index`; then go on to the next step. One block.
extern "C" __global__ void begin_step(count_t* step, const double* table, int width,
                                      double* numbers, const count_t* order, int batch,
                                      int rows, count_t* index) {
    const count_t now = step[0];
    for (int j = threadIdx.x; j < width; j += blockDim.x) numbers[j] = table[now * width + j];
    for (count_t i = threadIdx.x; i < rows; i += blockDim.x) index[i] = order[now * batch + i];
    __syncthreads();  // all have read `step`
    if (threadIdx.x == 0) step[0] = now + 1;
}

// out[i] = (table[index[i]] - offset) * factor; index null: row i itself; offset null: 0.
// factors null: one factor for all.
#define GATHER(name, source)                                                                      \
    extern "C" __global__ void name(const source* table, const count_t* index, int n,             \
                                    int width, const real* offset, const real* factors,           \
                                    real factor, real* out) {                                     \
        EACH(i, n) {                                                                              \
            const unsigned int row = (unsigned int)i / (unsigned int)width;                       \
            const unsigned int column = (unsigned int)i - row * (unsigned int)width;              \
            real x = (real)table[(index ? index[row] : (count_t)row) * width + column];           \
            if (offset) x -= offset[column];                                                      \
            out[i] = x * (factors ? factors[column] : factor);                                    \
        }                                                                                         \
    }

GATHER(gather_bytes, unsigned char)
GATHER(gather_floats, float)
GATHER(gather_doubles, double)

// out[i] = the one-hot row of labels[index[i]]
extern "C" __global__ void one_hot_rows(const count_t* labels, const count_t* index, int n,
                                        int classes, real* out) {
    EACH(i, n) {
        const unsigned int row = (unsigned int)i / (unsigned int)classes;
        const unsigned int column = (unsigned int)i - row * (unsigned int)classes;
        out[i] = labels[index[row]] == (count_t)column ? (real)1 : (real)0;
    }
}
