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

// One row of the batch: a rectangle of a photo, resized so that its centre is the input. Where the
// resized rectangle does not cover the input, there is a border of one colour.
// zoo/inference/gpu/views.py has the same layout as a NumPy type.
struct View {
    unsigned long long source;  // address of the rectangle's first pixel, RGB, 8 bits a channel
    long long pitch;            // bytes from a row of the source to the next
    long long weights;          // where its weights start: those of x, then those of y
    long long middle;           // where its rows start between the passes, in bytes
    int width, height;          // of the rectangle
    int new_width, new_height;  // of the resized rectangle
    int left, top;              // of the input in the resized rectangle; negative: of a border
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

// Size of the engine's input, and the colour of a border, 0xRRGGBB.
struct Input {
    int width, height, border;
};

// The windows of a view: those of the columns, then those of the rows.
__device__ long long windows_at(int view, int axis, Input input) {
    return (long long)view * (input.width + input.height) + (axis == 0 ? 0 : input.width);
}

// Computes the weights of one output pixel per thread; blockIdx.y is the axis.
extern "C" __global__ void compute_weights(
    const View* views, Window* windows, int* weights, int width, int height, int filter
) {
    const Input input = {width, height, 0};
    const int place = blockIdx.x * blockDim.x + threadIdx.x;
    const int axis = blockIdx.y;
    if (place >= (axis == 0 ? width : height)) return;
    const View view = views[blockIdx.z];
    const int size = axis == 0 ? view.width : view.height;
    const int new_size = axis == 0 ? view.new_width : view.new_height;
    const int taps = axis == 0 ? view.taps_x : view.taps_y;
    const int output = place + (axis == 0 ? view.left : view.top);
    Window* window = windows + windows_at(blockIdx.z, axis, input) + place;
    if (output < 0 || output >= new_size) {  // in a border
        *window = Window{0, 0};
        return;
    }

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
                               : (long long)width * view.taps_x + (long long)place * taps);
    for (int k = 0; k < count; k++) {
        double weight = filter_at((k + first - center + 0.5) * inverse, filter);
        if (total != 0.0) weight /= total;
        const double scaled = weight * (1 << PRECISION_BITS);
        target[k] = (int)(weight < 0 ? -0.5 + scaled : 0.5 + scaled);
    }
    *window = Window{first, count};
}

__device__ unsigned char clip(int sum) {
    const int value = sum >> PRECISION_BITS;
    return (unsigned char)(value < 0 ? 0 : value > 255 ? 255 : value);
}

// Resizes the rows that the crop needs to the columns of the crop; a thread for each pixel.
extern "C" __global__ void resize_rows(
    const View* views, const Window* windows, const int* weights, unsigned char* middle, int width,
    int height
) {
    const Input input = {width, height, 0};
    const View view = views[blockIdx.z];
    const int x = blockIdx.x * blockDim.x + threadIdx.x;
    const int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= view.rows) return;
    const Window window = windows[windows_at(blockIdx.z, 0, input) + x];
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
    unsigned char* target = middle + view.middle + 3 * ((long long)y * width + x);
    target[0] = clip(red);
    target[1] = clip(green);
    target[2] = clip(blue);
}

// Resizes columns, scales to 0..1, normalises, and writes the three planes of the engine's input.
template <typename Number>
__device__ void resize_columns(
    const View* views, const Window* windows, const int* weights, const unsigned char* middle,
    Number* images, Input input, const float* scale, const float* offset
) {
    const View view = views[blockIdx.z];
    const int x = blockIdx.x * blockDim.x + threadIdx.x;
    const int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= input.width || y >= input.height) return;
    const Window across = windows[windows_at(blockIdx.z, 0, input) + x];
    const Window window = windows[windows_at(blockIdx.z, 1, input) + y];
    const int* weight = weights + view.weights + (long long)input.width * view.taps_x
                        + (long long)y * view.taps_y;
    const unsigned char* column = middle + view.middle + 3LL * x;
    int sums[3] = {1 << (PRECISION_BITS - 1), 1 << (PRECISION_BITS - 1), 1 << (PRECISION_BITS - 1)};
    for (int k = 0; k < window.count; k++) {
        const unsigned char* pixel = column + 3LL * (window.first - view.first + k) * input.width;
        for (int channel = 0; channel < 3; channel++) sums[channel] += pixel[channel] * weight[k];
    }
    const bool is_border = across.count == 0 || window.count == 0;
    for (int channel = 0; channel < 3; channel++) {
        const unsigned char colour = input.border >> (8 * (2 - channel)) & 255;
        const unsigned char pixel = is_border ? colour : clip(sums[channel]);
        const float value = pixel * scale[channel] - offset[channel];
        const long long plane = view.row * 3LL + channel;
        store(images + (plane * input.height + y) * input.width + x, value);
    }
}

extern "C" __global__ void resize_columns_float(
    const View* views, const Window* windows, const int* weights, const unsigned char* middle,
    float* images, int width, int height, int border, const float* scale, const float* offset
) {
    const Input input = {width, height, border};
    resize_columns(views, windows, weights, middle, images, input, scale, offset);
}

extern "C" __global__ void resize_columns_half(
    const View* views, const Window* windows, const int* weights, const unsigned char* middle,
    unsigned short* images, int width, int height, int border, const float* scale,
    const float* offset
) {
    const Input input = {width, height, border};
    resize_columns(views, windows, weights, middle, images, input, scale, offset);
}
