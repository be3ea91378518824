// Shared by all kernels. `real` is float, or double where NEMBP_DOUBLE is defined.
// Rows of a matrix are samples; every matrix is contiguous, row after row.

#ifdef NEMBP_DOUBLE
typedef double real;
#define EXP exp
#define LOG log
#define LOG1P log1p
#define TANH tanh
#define SQRT sqrt
#define FABS fabs
#define SIN sin
#define COS cos
#else
typedef float real;
#define EXP expf
#define LOG logf
#define LOG1P log1pf
#define TANH tanhf
#define SQRT sqrtf
#define FABS fabsf
#define SIN sinf
#define COS cosf
#endif

typedef long long count_t;            // of elements
typedef unsigned long long word64;

#define THREADS 256                   // most threads of a block that reduces

// for every element i < n that falls to this thread, whatever the launch's geometry
#define EACH(i, n)                                                          \
    for (count_t i = blockIdx.x * (count_t)blockDim.x + threadIdx.x; i < n; \
         i += (count_t)gridDim.x * blockDim.x)

// Sum over a block's threads (blockDim.x a power of two, at most THREADS); all of them get it.
// The order of the additions is always the same.
__device__ real block_sum(real value, real* shared) {
    const unsigned int i = threadIdx.x;
    __syncthreads();  // an earlier result may still be being read
    shared[i] = value;
    for (unsigned int half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (i < half) shared[i] += shared[i + half];
    }
    __syncthreads();
    return shared[0];
}

__device__ real block_max(real value, real* shared) {
    const unsigned int i = threadIdx.x;
    __syncthreads();
    shared[i] = value;
    for (unsigned int half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (i < half && !(shared[i] >= shared[i + half])) shared[i] = shared[i + half];
    }
    __syncthreads();
    return shared[0];
}

// out = scale * sum of a column, by one block
extern "C" __global__ void sum_column(const real* column, int rows, real scale, real* out) {
    __shared__ real shared[THREADS];
    real sum = 0;
    for (count_t i = threadIdx.x; i < rows; i += blockDim.x) sum += column[i];
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) out[0] = scale * sum;
}

// The sums of the rows of several matrices, by blocks of (32, 32) threads. Each line of the table:
// addresses of x and out, rows, columns, and the first block that works on it.
extern "C" __global__ void sum_rows(const count_t* table, int matrices) {
    __shared__ real shared[32][33];
    int k = 0;
    while (k + 1 < matrices && table[5 * (k + 1) + 4] <= (count_t)blockIdx.x) k++;
    const count_t* line = table + 5 * k;
    const real* x = (const real*)line[0];
    const count_t rows = line[2];
    const int columns = (int)line[3], column = (int)(blockIdx.x - line[4]) * 32 + threadIdx.x;
    real sum = 0;
    if (column < columns) {
#pragma unroll 4
        for (count_t i = threadIdx.y; i < rows; i += 32) sum += x[i * columns + column];
    }
    shared[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < columns) {
        sum = 0;
        for (int k = 0; k < 32; k++) sum += shared[k][threadIdx.x];
        ((real*)line[1])[column] = sum;
    }
}
