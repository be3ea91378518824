// Windows of images laid out as rows, and the adjoint (nembp.engine.convolution).
// Images N, H, W, C without padding; windows[n, p, q, i, j, c] is the pixel
// (s p + i - top, t q + j - left) of image n, zero outside of it.

// n: elements of `windows`
extern "C" __global__ void im2col(const real* images, real* windows, int n, int height,
                                       int width, int channels, int kernel_h, int kernel_w,
                                       int stride_h, int stride_w, int top, int left, int rows,
                                       int columns) {
    EACH(element, n) {
        unsigned int rest = (unsigned int)element;
        const int c = rest % channels;
        rest /= channels;
        const int j = rest % kernel_w;
        rest /= kernel_w;
        const int i = rest % kernel_h;
        rest /= kernel_h;
        const int q = rest % columns;
        rest /= columns;
        const int p = rest % rows;
        const count_t image = rest / rows;
        const int y = stride_h * p + i - top, x = stride_w * q + j - left;
        const bool inside = y >= 0 && y < height && x >= 0 && x < width;
        windows[element] =
            inside ? images[((image * height + y) * width + x) * channels + c] : (real)0;
    }
}

// Every pixel gathers from the windows that hold it, so no two threads add to one number.
// n: elements of `images`
extern "C" __global__ void col2im(const real* windows, real* images, int n, int height,
                                          int width, int channels, int kernel_h, int kernel_w,
                                          int stride_h, int stride_w, int top, int left, int rows,
                                          int columns) {
    EACH(element, n) {
        unsigned int rest = (unsigned int)element;
        const int c = rest % channels;
        rest /= channels;
        const int x = rest % width;
        rest /= width;
        const int y = rest % height;
        const count_t image = rest / height;
        real sum = 0;
        for (int i = 0; i < kernel_h; i++) {
            const int down = y + top - i;
            if (down < 0 || down % stride_h || down / stride_h >= rows) continue;
            for (int j = 0; j < kernel_w; j++) {
                const int across = x + left - j;
                if (across < 0 || across % stride_w || across / stride_w >= columns) continue;
                const count_t window =
                    (image * rows + down / stride_h) * columns + across / stride_w;
                sum += windows[((window * kernel_h + i) * kernel_w + j) * channels + c];
            }
        }
        images[element] = sum;
    }
}
