// The gradient bank on a GPU: every op reads every row once and is bound by memory.
//
// Deterministic: no atomics, and the order of every sum depends on K and P alone.
// A thread reads eight columns at a time, in 16-byte loads. That needs rows which start on 16 bytes, so
// P must divide by 8; other banks take the same kernels with scalar loads (`Wide` = false).
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include "common.cuh"
#include "daj/grad_bank.h"

namespace daj::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
// Four blocks may use 64 registers a thread. Left to itself, ptxas aims at eight blocks with 32, and spills.
constexpr int kBlocksPerSM = 4;
constexpr int kWidth = 8;                              // columns that a thread reads at once
constexpr int kStride = kThreads * kWidth;             // columns that a block reads at once
constexpr int kSteps = 2;                              // reads of one block of the dot
constexpr int64_t kColumnsPerTile = kStride * kSteps;  // columns of one partial sum of the dot
constexpr int kRows = 16;                              // rows of the dot whose sums a thread holds at once

struct Eight {
    float x[kWidth];
};

__device__ __forceinline__ void load_wide(const float* from, Eight& to) {
    const float4 low = __ldg(reinterpret_cast<const float4*>(from));
    const float4 high = __ldg(reinterpret_cast<const float4*>(from) + 1);
    to = {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
}

// A bfloat16 is the upper half of a float; the lower address is the lower half of a word.
__device__ __forceinline__ void load_wide(const __nv_bfloat16* from, Eight& to) {
    const uint4 words = __ldg(reinterpret_cast<const uint4*>(from));
    to = {{__uint_as_float(words.x << 16), __uint_as_float(words.x & 0xffff0000u), __uint_as_float(words.y << 16),
           __uint_as_float(words.y & 0xffff0000u), __uint_as_float(words.z << 16),
           __uint_as_float(words.z & 0xffff0000u), __uint_as_float(words.w << 16),
           __uint_as_float(words.w & 0xffff0000u)}};
}

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

// Eight columns of this thread; zeros beyond P. Wide: neighbours in memory. Otherwise kThreads apart,
// so that a warp's scalar loads still lie side by side.
template <bool Wide, typename T>
__device__ __forceinline__ Eight load(const T* row, int64_t start, int64_t P) {
    Eight result = {};
    if constexpr (Wide) {
        const int64_t p = start + threadIdx.x * kWidth;
        if (p < P) load_wide(row + p, result);
    } else {
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
            const int64_t p = start + i * kThreads + threadIdx.x;
            if (p < P) result.x[i] = to_float(row[p]);
        }
    }
    return result;
}

__device__ __forceinline__ float sum_of_warps(const float* sums) {
    float sum = 0;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) sum += sums[warp];
    return sum;
}

// What a tile's rows are multiplied with: the vector.
struct PlainFactor {
    static constexpr bool kOwnRow = false;
    const float* vector;

    template <bool Wide>
    __device__ __forceinline__ Eight columns(int64_t start, int64_t P, float&) const {
        return load<Wide>(vector, start, P);
    }
};

// The same for y = J o vector; adds <gradient, y> of the columns to `along`.
struct AdamFactor {
    static constexpr bool kOwnRow = true;
    AdamVector of;

    template <bool Wide>
    __device__ __forceinline__ Eight columns(int64_t start, int64_t P, float& along) const {
        Eight y = load<Wide>(of.vector, start, P);
        const Eight g = load<Wide>(of.gradient, start, P);
        const Eight m0 = load<Wide>(of.m0, start, P), v0 = load<Wide>(of.v0, start, P);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
            y.x[i] *= adam_jacobian(of.step, g.x[i], m0.x[i], v0.x[i]);
            along = fmaf(g.x[i], y.x[i], along);
        }
        return y;
    }
};

// First stage: partials[k, tile] for all rows of one tile, in chunks of kRows; with kOwnRow, partials[K, tile] is what
// the factor adds up itself. The factors are made once and wait in shared memory, where each thread reads only what it
// wrote.
template <bool Wide, typename Factor, typename T>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    dot_tiles(const T* __restrict__ bank, const Factor factor, float* __restrict__ partials, int64_t K, int64_t P,
              int64_t num_tiles) {
    __shared__ float4 factors[kSteps][2][kThreads];
    __shared__ float warp_sums[kRows][kWarps];
    const int64_t tile = blockIdx.x, begin = tile * kColumnsPerTile;
    float along = 0;
#pragma unroll 1
    for (int step = 0; step < kSteps; ++step) {
        const Eight y = factor.template columns<Wide>(begin + step * kStride, P, along);
        factors[step][0][threadIdx.x] = make_float4(y.x[0], y.x[1], y.x[2], y.x[3]);
        factors[step][1][threadIdx.x] = make_float4(y.x[4], y.x[5], y.x[6], y.x[7]);
    }
    if constexpr (Factor::kOwnRow) {
        along = warp_sum(along);
        if (threadIdx.x % 32 == 0) warp_sums[0][threadIdx.x / 32] = along;
        __syncthreads();
        if (threadIdx.x == 0) partials[K * num_tiles + tile] = sum_of_warps(warp_sums[0]);
        __syncthreads();
    }
    for (int64_t first_row = 0; first_row < K; first_row += kRows) {
        const T* rows = bank + first_row * P;
        float sums[kRows] = {};
#pragma unroll 1
        for (int step = 0; step < kSteps; ++step) {
            const float4 low = factors[step][0][threadIdx.x], high = factors[step][1][threadIdx.x];
            const Eight y = {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
                if (first_row + r < K) {
                    const Eight row = load<Wide>(rows + r * P, begin + step * kStride, P);
#pragma unroll
                    for (int i = 0; i < kWidth; ++i) sums[r] = fmaf(row.x[i], y.x[i], sums[r]);
                }
            }
        }
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            const float sum = warp_sum(sums[r]);
            if (threadIdx.x % 32 == 0) warp_sums[r][threadIdx.x / 32] = sum;
        }
        __syncthreads();
        if (threadIdx.x < kRows && first_row + threadIdx.x < K) {
            partials[(first_row + threadIdx.x) * num_tiles + tile] = sum_of_warps(warp_sums[threadIdx.x]);
        }
        __syncthreads();
    }
}

// Second stage: one block adds up the partials of one row, in double.
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    dot_rows(const float* __restrict__ partials, float* __restrict__ out, int64_t num_tiles) {
    __shared__ double sums[kThreads];
    double sum = 0;
    for (int64_t tile = threadIdx.x; tile < num_tiles; tile += kThreads) sum += partials[blockIdx.x * num_tiles + tile];
    sums[threadIdx.x] = sum;
    for (int half = kThreads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0) out[blockIdx.x] = static_cast<float>(sums[0]);
}

template <bool Wide, typename T>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM)
    combine_columns(const T* __restrict__ bank, const float* __restrict__ weights, float* __restrict__ out, int64_t K,
                    int64_t P) {
    const int64_t start = static_cast<int64_t>(blockIdx.x) * kStride;
    Eight total = {};
#pragma unroll 4
    for (int64_t k = 0; k < K; ++k) {
        const float weight = __ldg(weights + k);
        const Eight row = load<Wide>(bank + k * P, start, P);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) total.x[i] = fmaf(weight, row.x[i], total.x[i]);
    }
    if constexpr (Wide) {
        const int64_t p = start + threadIdx.x * kWidth;
        if (p < P) {
            float4* to = reinterpret_cast<float4*>(out + p);
            to[0] = make_float4(total.x[0], total.x[1], total.x[2], total.x[3]);
            to[1] = make_float4(total.x[4], total.x[5], total.x[6], total.x[7]);
        }
    } else {
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
            const int64_t p = start + i * kThreads + threadIdx.x;
            if (p < P) out[p] = total.x[i];
        }
    }
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

// `pointers`: whatever else than the bank is read eight columns at a time.
template <typename Factor, typename T>
void launch_dot(const T* bank, const Factor& factor, std::initializer_list<const float*> pointers, float* scratch,
                float* out, int64_t K, int64_t P, cudaStream_t stream) {
    const int64_t num_tiles = ceil_div(P, kColumnsPerTile), num_rows = K + Factor::kOwnRow;
    if (num_rows == 0) return;
    if (num_tiles > 0) {
        const bool wide = P % kWidth == 0 && aligned(bank) && std::all_of(pointers.begin(), pointers.end(), aligned);
        const auto kernel = wide ? dot_tiles<true, Factor, T> : dot_tiles<false, Factor, T>;
        kernel<<<static_cast<unsigned>(num_tiles), kThreads, 0, stream>>>(bank, factor, scratch, K, P, num_tiles);
    }
    dot_rows<<<static_cast<unsigned>(num_rows), kThreads, 0, stream>>>(scratch, out, num_tiles);
}

template <typename T>
void launch_combine(const T* bank, const float* weights, float* out, int64_t K, int64_t P, cudaStream_t stream) {
    if (P == 0) return;
    const auto kernel =
        P % kWidth == 0 && aligned(bank) && aligned(out) ? combine_columns<true, T> : combine_columns<false, T>;
    kernel<<<static_cast<unsigned>(ceil_div(P, kStride)), kThreads, 0, stream>>>(bank, weights, out, K, P);
}

}  // namespace

int64_t grad_bank_dot_scratch(int64_t K, int64_t P) { return K * ceil_div(P, kColumnsPerTile); }

const char* grad_bank_dot(const void* bank, BankType type, const float* vector, float* scratch, float* out, int64_t K,
                          int64_t P, void* stream) {
    const auto on = static_cast<cudaStream_t>(stream);
    if (type == BankType::kFloat32) {
        launch_dot(static_cast<const float*>(bank), PlainFactor{vector}, {vector}, scratch, out, K, P, on);
    } else {
        launch_dot(static_cast<const __nv_bfloat16*>(bank), PlainFactor{vector}, {vector}, scratch, out, K, P, on);
    }
    return launch_error();
}

const char* grad_bank_dot_adam(const void* bank, BankType type, const AdamVector& y, float* scratch, float* out,
                               int64_t K, int64_t P, void* stream) {
    const auto on = static_cast<cudaStream_t>(stream);
    const auto pointers = {y.vector, y.gradient, y.m0, y.v0};
    if (type == BankType::kFloat32) {
        launch_dot(static_cast<const float*>(bank), AdamFactor{y}, pointers, scratch, out, K, P, on);
    } else {
        launch_dot(static_cast<const __nv_bfloat16*>(bank), AdamFactor{y}, pointers, scratch, out, K, P, on);
    }
    return launch_error();
}

const char* grad_bank_combine(const void* bank, BankType type, const float* weights, float* out, int64_t K, int64_t P,
                              void* stream) {
    const auto on = static_cast<cudaStream_t>(stream);
    if (type == BankType::kFloat32) {
        launch_combine(static_cast<const float*>(bank), weights, out, K, P, on);
    } else {
        launch_combine(static_cast<const __nv_bfloat16*>(bank), weights, out, K, P, on);
    }
    return launch_error();
}

}  // namespace daj::cuda
