// Resizes, crops and normalises photos, with the same integer arithmetic as Pillow's 8-bit resize.
//
// Source of the arithmetic: Pillow's src/libImaging/Resample.c. Weights are computed in double
// precision and rounded to 22-bit fixed point; the horizontal pass comes first and is rounded to
// 8 bits before the vertical one. Compiled without fused multiply-add, which would round once where
// Pillow rounds twice.
//
// The tests compile this file for the CPU, too, with a header that stands in for CUDA.

#define PRECISION_BITS 22

#ifdef __CUDACC_RTC__
__device__ void store(float* target, float value) { *target = value; }

// Rounds to the nearest float16, ties to even. By its instruction: the header of float16 is no part
// of the run-time compiler.
__device__ void store(unsigned short* target, float value) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(*target) : "f"(value));
}
#endif

enum Filter { BOX = 0, BILINEAR = 1, BICUBIC = 2, LANCZOS = 3 };

// One row of the batch: a rectangle of a photo, resized so that its centre crop is the input.
// zoo/inference/gpu/views.py has the same layout as a NumPy type.
struct View {
    unsigned long long source;  // address of the rectangle's first pixel, RGB, 8 bits a channel
    long long pitch;            // bytes from a row of the source to the next
    long long weights;          // where its weights start: those of x, then those of y
    long long middle;           // where its rows start between the passes, in bytes
    int width, height;          // of the rectangle
    int new_width, new_height;  // of the resized rectangle
    int left, top;              // of the crop in the resized rectangle
    int first, rows;            // rows of the rectangle that the crop needs
    int taps_x, taps_y;         // most pixels that one output pixel depends on
    int flip;                   // whether the rectangle is mirrored before it is resized
    int row;                    // in the batch
};

// The pixels that an output pixel depends on, along one axis.
struct Window {
    int first, count;
};

__device__ double sinc(double x) {
    if (x == 0.0) return 1.0;
    x = x * 3.14159265358979323846;
    return sin(x) / x;
}

__device__ double filter_at(double x, int filter) {
    if (filter == BOX) return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
    if (filter == LANCZOS) return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
    if (x < 0.0) x = -x;
    if (filter == BILINEAR) return x < 1.0 ? 1.0 - x : 0.0;
    const double a = -0.5;
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

__device__ double support_of(int filter) {
    return filter == BOX ? 0.5 : filter == BILINEAR ? 1.0 : filter == BICUBIC ? 2.0 : 3.0;
}

// Computes the weights of one output pixel per thread; blockIdx.y is the axis.
extern "C" __global__ void compute_weights(
    const View* views, Window* windows, int* weights, int side, int filter
) {
    const int place = blockIdx.x * blockDim.x + threadIdx.x;
    if (place >= side) return;
    const int axis = blockIdx.y;
    const View view = views[blockIdx.z];
    const int size = axis == 0 ? view.width : view.height;
    const int new_size = axis == 0 ? view.new_width : view.new_height;
    const int taps = axis == 0 ? view.taps_x : view.taps_y;
    const int output = place + (axis == 0 ? view.left : view.top);

    const double scale = (double)size / new_size;
    const double filter_scale = scale < 1.0 ? 1.0 : scale;
    const double support = support_of(filter) * filter_scale;
    const double inverse = 1.0 / filter_scale;
    const double center = (output + 0.5) * scale;
    int first = (int)(center - support + 0.5);
    if (first < 0) first = 0;
    int end = (int)(center + support + 0.5);
    if (end > size) end = size;
    const int count = end - first;

    double total = 0.0;
    for (int k = 0; k < count; k++) total += filter_at((k + first - center + 0.5) * inverse, filter);
    int* target = weights + view.weights
                  + (axis == 0 ? (long long)place * taps
                               : (long long)side * view.taps_x + (long long)place * taps);
    for (int k = 0; k < count; k++) {
        double weight = filter_at((k + first - center + 0.5) * inverse, filter);
        if (total != 0.0) weight /= total;
        const double scaled = weight * (1 << PRECISION_BITS);
        target[k] = (int)(weight < 0 ? -0.5 + scaled : 0.5 + scaled);
    }
    windows[(blockIdx.z * 2 + axis) * side + place] = Window{first, count};
}

__device__ unsigned char clip(int sum) {
    const int value = sum >> PRECISION_BITS;
    return (unsigned char)(value < 0 ? 0 : value > 255 ? 255 : value);
}

// Resizes the rows that the crop needs to the columns of the crop; a thread for each pixel.
extern "C" __global__ void resize_rows(
    const View* views, const Window* windows, const int* weights, unsigned char* middle, int side
) {
    const View view = views[blockIdx.z];
    const int x = blockIdx.x * blockDim.x + threadIdx.x;
    const int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= side || y >= view.rows) return;
    const Window window = windows[blockIdx.z * 2 * side + x];
    const int* weight = weights + view.weights + (long long)x * view.taps_x;
    const unsigned char* row = (const unsigned char*)view.source + (view.first + y) * view.pitch;
    int red = 1 << (PRECISION_BITS - 1), green = red, blue = red;
    for (int k = 0; k < window.count; k++) {
        const int column = window.first + k;
        const unsigned char* pixel = row + 3 * (view.flip ? view.width - 1 - column : column);
        red += pixel[0] * weight[k];
        green += pixel[1] * weight[k];
        blue += pixel[2] * weight[k];
    }
    unsigned char* target = middle + view.middle + 3 * ((long long)y * side + x);
    target[0] = clip(red);
    target[1] = clip(green);
    target[2] = clip(blue);
}

// Resizes columns, scales to 0..1, normalises, and writes the three planes of the engine's input.
template <typename Number>
__device__ void resize_columns(
    const View* views, const Window* windows, const int* weights, const unsigned char* middle,
    Number* images, int side, const float* scale, const float* offset
) {
    const View view = views[blockIdx.z];
    const int x = blockIdx.x * blockDim.x + threadIdx.x;
    const int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= side || y >= side) return;
    const Window window = windows[(blockIdx.z * 2 + 1) * side + y];
    const int* weight = weights + view.weights + (long long)side * view.taps_x
                        + (long long)y * view.taps_y;
    const unsigned char* column = middle + view.middle + 3LL * x;
    int sums[3] = {1 << (PRECISION_BITS - 1), 1 << (PRECISION_BITS - 1), 1 << (PRECISION_BITS - 1)};
    for (int k = 0; k < window.count; k++) {
        const unsigned char* pixel = column + 3LL * (window.first - view.first + k) * side;
        for (int channel = 0; channel < 3; channel++) sums[channel] += pixel[channel] * weight[k];
    }
    for (int channel = 0; channel < 3; channel++) {
        const float value = clip(sums[channel]) * scale[channel] - offset[channel];
        store(images + ((view.row * 3LL + channel) * side + y) * side + x, value);
    }
}

extern "C" __global__ void resize_columns_float(
    const View* views, const Window* windows, const int* weights, const unsigned char* middle,
    float* images, int side, const float* scale, const float* offset
) {
    resize_columns(views, windows, weights, middle, images, side, scale, offset);
}

extern "C" __global__ void resize_columns_half(
    const View* views, const Window* windows, const int* weights, const unsigned char* middle,
    unsigned short* images, int side, const float* scale, const float* offset
) {
    resize_columns(views, windows, weights, middle, images, side, scale, offset);
}
