// Hidden layers: a = f(z + bias), and error * f'(z) with f' in terms of a
// (nembp.engine.activations).

#define IDENTITY 0
#define LOGISTIC 1
#define HYPERBOLIC 2
#define RECTIFIED 3
#define LEAKY 4

// z[i] = f(z[i] + bias[i mod width]); bias may be null
extern "C" __global__ void add_bias_activate(real* z, const real* bias, int n, int width,
                                             int kind, real slope) {
    EACH(i, n) {
        real x = z[i];
        if (bias) x += bias[(unsigned int)i % (unsigned int)width];
        if (kind == LOGISTIC) {
            x = (real)0.5 * TANH((real)0.5 * x) + (real)0.5;
        } else if (kind == HYPERBOLIC) {
            x = TANH(x);
        } else if (kind == RECTIFIED) {
            x = x < 0 ? (real)0 : x;  // and a NaN stays one, as in NumPy
        } else if (kind == LEAKY) {
            x = x < 0 ? slope * x : x;
        }
        z[i] = x;
    }
}

// error[i] *= f'(z[i])
extern "C" __global__ void multiply_derivative(real* error, const real* a, int n, int kind,
                                               real slope) {
    EACH(i, n) {
        real e = error[i];
        const real x = a[i];
        if (kind == LOGISTIC) {
            e *= x - x * x;
        } else if (kind == HYPERBOLIC) {
            e -= x * x * e;
        } else if (kind == RECTIFIED) {
            e = x > 0 ? e : (real)0;
        } else if (kind == LEAKY) {
            e *= x > 0 ? (real)1 : slope;
        }
        error[i] = e;
    }
}
