// Runs CUDA C kernels on the host, one thread after another, so that their very source can be
// tested where there is no GPU. Every CUDA thread of a block is a fiber; __syncthreads() hands over
// to the next one until all have come there. From barrier to barrier the fibers run first to last,
// then last to first, so that most missing barriers give wrong numbers, and a barrier that some
// threads of a block do not reach is an error.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <csetjmp>
#include <ucontext.h>
#include <vector>

#define __global__
#define __device__
#define __shared__ static

struct Index3 { unsigned int x, y, z; };
static Index3 threadIdx, blockIdx, blockDim, gridDim;

static inline unsigned int __umulhi(unsigned int a, unsigned int b) {
    return (unsigned int)(((unsigned long long)a * b) >> 32);
}

enum Status { WAITING, DONE };
static ucontext_t scheduler;
static jmp_buf scheduler_place;  // setjmp is much faster than swapcontext, which only starts fibers
struct Fiber { ucontext_t context; jmp_buf at; Index3 place; Status status; bool begun; };
static std::vector<Fiber> fibers;
static std::vector<char> stacks;
static size_t current;
static void (*kernel)(void**);
static void** arguments;
static const size_t STACK = 1 << 16;

static void __syncthreads() {
    fibers[current].status = WAITING;
    if (!_setjmp(fibers[current].at)) _longjmp(scheduler_place, 1);
    threadIdx = fibers[current].place;
}

static void enter() {
    kernel(arguments);
    fibers[current].status = DONE;
    _longjmp(scheduler_place, 1);
}

static void go_on(Fiber& fiber) {
    if (_setjmp(scheduler_place)) return;
    if (fiber.begun) _longjmp(fiber.at, 1);
    fiber.begun = true;
    setcontext(&fiber.context);
}

// Returns 0, or 1 if a barrier was not reached by every thread of a block.
static int run_block_in_fibers(size_t threads) {
    fibers.resize(threads);
    stacks.resize(threads * STACK);
    for (size_t i = 0; i < threads; i++) {
        Fiber& fiber = fibers[i];
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = &stacks[i * STACK];
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = &scheduler;
        fiber.status = WAITING;
        fiber.begun = false;
        const unsigned int n = (unsigned int)i;
        fiber.place = {n % blockDim.x, n / blockDim.x % blockDim.y, n / blockDim.x / blockDim.y};
        makecontext(&fiber.context, enter, 0);
    }
    for (size_t round = 0;; round++) {
        size_t done = 0;
        for (size_t step = 0; step < threads; step++) {
            current = round % 2 ? threads - 1 - step : step;
            if (fibers[current].status == DONE) return 1;
            threadIdx = fibers[current].place;
            go_on(fibers[current]);
            done += fibers[current].status == DONE;
        }
        if (done == threads) return 0;
        if (done) return 1;
    }
}

static int launch(void (*function)(void**), int has_barriers, const unsigned int* sizes,
                  void** args) {
    gridDim = {sizes[0], sizes[1], sizes[2]};
    blockDim = {sizes[3], sizes[4], sizes[5]};
    kernel = function;
    arguments = args;
    const size_t threads = (size_t)blockDim.x * blockDim.y * blockDim.z;
    for (unsigned int z = 0; z < gridDim.z; z++)
        for (unsigned int y = 0; y < gridDim.y; y++)
            for (unsigned int x = 0; x < gridDim.x; x++) {
                blockIdx = {x, y, z};
                if (has_barriers) {
                    if (run_block_in_fibers(threads)) return 1;
                    continue;
                }
                for (unsigned int k = 0; k < blockDim.z; k++)
                    for (unsigned int j = 0; j < blockDim.y; j++)
                        for (unsigned int i = 0; i < blockDim.x; i++) {
                            threadIdx = {i, j, k};
                            function(args);
                        }
            }
    return 0;
}
