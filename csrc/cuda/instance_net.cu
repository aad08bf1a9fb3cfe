// The weighting net on a GPU: one launch of one block, for a step that is all latency.
//
// Samples pass in tiles, whose activations lie in shared memory beside the parameters. Deterministic: a thread owns
// its entries of the gradient and adds up the samples in order.
#include <cuda_runtime.h>

#include "common.cuh"
#include "daj/instance_net.h"

namespace daj::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 16;  // samples; the paper's window
constexpr int kMaxParameters = kMaxHidden * (kMaxFeatures + kMaxHidden + 3) + 1;

// Of one tile. `first` and `second` are the hidden layers' outputs; `of_*` are derivatives by their inputs.
struct Tile {
    float x[kTile * kMaxFeatures];
    float first[kTile * kMaxHidden], second[kTile * kMaxHidden];
    float of_first[kTile * kMaxHidden], of_second[kTile * kMaxHidden];
    float of_raw[kTile];
};

// Sum over n of left[n * left_step] * right[n * right_step].
__device__ __forceinline__ float dot(const float* left, int left_step, const float* right, int right_step, int n) {
    float sum = 0;
    for (int i = 0; i < n; ++i) sum = fmaf(left[i * left_step], right[i * right_step], sum);
    return sum;
}

// Sum over n of left[n * step].
__device__ __forceinline__ float sum(const float* left, int step, int n) {
    float total = 0;
    for (int i = 0; i < n; ++i) total += left[i * step];
    return total;
}

// d alpha by one parameter, weighted and summed over the n samples of a tile.
__device__ __forceinline__ float of_parameter(const InstanceNet& net, const Tile& tile, int index, int n) {
    const int F = net.F, H = net.H;
    if (index < net.b1()) return dot(tile.of_first + index / F, H, tile.x + index % F, F, n);
    if (index < net.W2()) return sum(tile.of_first + index - net.b1(), H, n);
    if (index < net.b2()) {
        const int entry = index - net.W2();
        return dot(tile.of_second + entry / H, H, tile.first + entry % H, H, n);
    }
    if (index < net.w3()) return sum(tile.of_second + index - net.b2(), H, n);
    if (index < net.b3()) return dot(tile.of_raw, 1, tile.second + index - net.w3(), H, n);
    return sum(tile.of_raw, 1, n);
}

__global__ void __launch_bounds__(kThreads)
    instance_net(InstanceNet net, const float* __restrict__ features, const float* __restrict__ parameters,
                 const float* __restrict__ derivative, float* __restrict__ weights, float* __restrict__ gradient,
                 int64_t B) {
    __shared__ float own[kMaxParameters];
    __shared__ Tile tile;
    const int F = net.F, H = net.H, N = net.size();
    const float *W1 = own, *b1 = own + net.b1(), *W2 = own + net.W2(), *b2 = own + net.b2(), *w3 = own + net.w3(),
                *b3 = own + net.b3();
    for (int i = threadIdx.x; i < N; i += kThreads) {
        own[i] = parameters[i];
        gradient[i] = 0;
    }
    for (int64_t begin = 0; begin < B; begin += kTile) {
        const int n = static_cast<int>(B - begin < kTile ? B - begin : kTile);
        for (int i = threadIdx.x; i < n * F; i += kThreads) tile.x[i] = features[begin * F + i];
        __syncthreads();
        for (int i = threadIdx.x; i < n * H; i += kThreads) {
            const int sample = i / H, j = i % H;
            tile.first[i] = tanhf(b1[j] + dot(W1 + j * F, 1, tile.x + sample * F, 1, F));
        }
        __syncthreads();
        for (int i = threadIdx.x; i < n * H; i += kThreads) {
            const int sample = i / H, j = i % H;
            tile.second[i] = tanhf(b2[j] + dot(W2 + j * H, 1, tile.first + sample * H, 1, H));
        }
        __syncthreads();
        for (int i = threadIdx.x; i < n; i += kThreads) {
            const float raw = b3[0] + dot(w3, 1, tile.second + i * H, 1, H);
            weights[begin + i] = squareplus(raw);
            tile.of_raw[i] = derivative[begin + i] * squareplus_slope(raw);
        }
        __syncthreads();
        for (int i = threadIdx.x; i < n * H; i += kThreads) {
            tile.of_second[i] = tile.of_raw[i / H] * w3[i % H] * tanh_slope(tile.second[i]);
        }
        __syncthreads();
        for (int i = threadIdx.x; i < n * H; i += kThreads) {
            const int sample = i / H, l = i % H;
            tile.of_first[i] = dot(tile.of_second + sample * H, 1, W2 + l, H, H) * tanh_slope(tile.first[i]);
        }
        __syncthreads();
        for (int i = threadIdx.x; i < N; i += kThreads) gradient[i] += of_parameter(net, tile, i, n);
        __syncthreads();
    }
}

}  // namespace

const char* instance_net_hypergrad(const InstanceNet& net, const float* features, const float* parameters,
                                   const float* derivative, float* weights, float* gradient, int64_t B, void* stream) {
    instance_net<<<1, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(net, features, parameters, derivative, weights,
                                                                        gradient, B);
    return launch_error();
}

}  // namespace daj::cuda
