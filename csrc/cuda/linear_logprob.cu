// The steps of the vocabulary pass on a GPU, between cuBLAS's products: a block for each row, bound by memory.
//
// Deterministic: a row's sums are taken by one block in one order. A row's tile is read once, into registers:
// kPerThread logits a thread, of at most kMostColumns together.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "common.cuh"
#include "daj/linear_logprob.h"

namespace daj::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kBlocksPerSM = 2;  // 64 registers a thread
constexpr int kWidth = 4;        // columns that a thread reads at once
constexpr int kReads = 4;
constexpr int kPerThread = kWidth * kReads;
static_assert(kThreads * kPerThread == kMostColumns);

struct Sums {
    float l, a;
};

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
    return x;
}

// Column of a thread's i-th logit. Wide: kWidth neighbours a read. Otherwise scalars, side by side in a warp.
template <bool Wide>
__device__ __forceinline__ int column(int i) {
    return Wide ? (i / kWidth * kThreads + threadIdx.x) * kWidth + i % kWidth : i * kThreads + threadIdx.x;
}

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ void store(float* to, float x) { *to = x; }
__device__ __forceinline__ void store(__nv_bfloat16* to, float x) { *to = __float2bfloat16_rn(x); }

__device__ __forceinline__ void store_wide(float* to, float4 x) { *reinterpret_cast<float4*>(to) = x; }
__device__ __forceinline__ void store_wide(__nv_bfloat16* to, float4 x) {
    __nv_bfloat162 pairs[2] = {__floats2bfloat162_rn(x.x, x.y), __floats2bfloat162_rn(x.z, x.w)};
    uint2 words;
    words.x = *reinterpret_cast<const unsigned*>(&pairs[0]);
    words.y = *reinterpret_cast<const unsigned*>(&pairs[1]);
    *reinterpret_cast<uint2*>(to) = words;
}

// `out` may be the products themselves: a thread writes what it has read alone. Wide: C divides by kWidth.
template <bool Wide, typename Out>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM) fold_tile(Tile tile, Out* out) {
    const int64_t n = blockIdx.x, N = tile.N;
    const int C = static_cast<int>(tile.C);
    const float* products = tile.products + n * C;
    __shared__ float warp_tops[kWarps];
    __shared__ Sums warp_sums[kWarps];
    __shared__ float target_logit;
    RowState row = load_row(tile.state, N, n);  // the same in every thread
    if (threadIdx.x == 0) target_logit = row.target;
    __syncthreads();
    const int64_t target = tile.targets[n] - tile.first;
    float logits[kPerThread];
    if constexpr (Wide) {
#pragma unroll
        for (int read = 0; read < kReads; ++read) {
            const int c = column<true>(read * kWidth);
            const float4 four = c < C ? *reinterpret_cast<const float4*>(products + c) : float4{};
            logits[read * kWidth] = four.x;
            logits[read * kWidth + 1] = four.y;
            logits[read * kWidth + 2] = four.z;
            logits[read * kWidth + 3] = four.w;
        }
    } else {
#pragma unroll
        for (int i = 0; i < kPerThread; ++i) {
            const int c = column<false>(i);
            logits[i] = c < C ? products[c] : 0;
        }
    }
    float top = -INFINITY;
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
        const int c = column<Wide>(i);
        if (c < C) {
            logits[i] = logit_of(logits[i], tile.bias ? __ldg(tile.bias + c) : 0, tile.logits);
            if (c == target) {
                target_logit = logits[i];
                logits[i] = -INFINITY;
            }
        } else {
            logits[i] = -INFINITY;
        }
        top = fmaxf(top, logits[i]);
    }
    top = warp_max(top);
    if (threadIdx.x % 32 == 0) warp_tops[threadIdx.x / 32] = top;
    __syncthreads();
    top = warp_max(warp_tops[threadIdx.x % kWarps]);
    const float fade = raise_maximum(row, top);
    Sums sums = {};
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
        const Term term = term_of(logits[i], row.m);
        sums.l += term.P;
        sums.a += term.weighted;
        logits[i] = term.P == 0 ? 0 : term.P * slope_of(logits[i], tile.logits);
    }
    if (out) {
        if constexpr (Wide) {
#pragma unroll
            for (int read = 0; read < kReads; ++read) {
                const int c = column<true>(read * kWidth);
                const float* four = logits + read * kWidth;
                if (c < C) store_wide(out + n * C + c, make_float4(four[0], four[1], four[2], four[3]));
            }
        } else {
#pragma unroll
            for (int i = 0; i < kPerThread; ++i) {
                const int c = column<false>(i);
                if (c < C) store(out + n * C + c, logits[i]);
            }
        }
    }
    if (tile.accumulator && fade != 1) {
        for (int64_t h = threadIdx.x; h < tile.H; h += kThreads) tile.accumulator[n * tile.H + h] *= fade;
    }
    sums = {warp_sum(sums.l), warp_sum(sums.a)};
    if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = sums;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int warp = 0; warp < kWarps; ++warp) {
            row.l += warp_sums[warp].l;
            row.a += warp_sums[warp].a;
        }
        tile.state[n] = row.m;
        tile.state[N + n] = row.l;
        tile.state[2 * N + n] = row.a;
        tile.state[3 * N + n] = target_logit;
    }
}

// `out` may be the accumulator itself: an element is read and written by one thread.
template <typename Weight, typename Out>
__global__ void __launch_bounds__(kThreads, kBlocksPerSM) finish_rows(Finish finish, const Weight* weight, Out* out) {
    const int64_t n = blockIdx.x;
    const RowState row = load_row(finish.state, finish.N, n);
    const RowResult result = finish_row(row);
    if (threadIdx.x == 0) {
        finish.logp[n] = result.logp;
        finish.lse[n] = result.lse;
        if (finish.entropy) finish.entropy[n] = result.entropy;
    }
    if (!finish.accumulator) return;
    const float slope = slope_of(row.target, finish.logits);
    const int64_t y = finish.targets[n] < 0 ? 0 : finish.targets[n] < finish.V ? finish.targets[n] : finish.V - 1;
    for (int64_t h = threadIdx.x; h < finish.H; h += kThreads) {
        const int64_t at = n * finish.H + h;
        const float of_target = to_float(weight[y * finish.H + h]);
        store(out + at, row_gradient(result, slope, of_target, finish.accumulator[at], finish.logits));
    }
}

template <typename Out>
void launch_tile(const Tile& tile, Out* out, cudaStream_t stream) {
    const auto aligned = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; };
    const bool wide = tile.C % kWidth == 0 && aligned(tile.products) && aligned(out);
    const auto kernel = wide ? fold_tile<true, Out> : fold_tile<false, Out>;
    kernel<<<static_cast<unsigned>(tile.N), kThreads, 0, stream>>>(tile, out);
}

template <typename Weight>
void launch_finish(const Finish& finish, const Weight* weight, cudaStream_t stream) {
    const auto blocks = static_cast<unsigned>(finish.N);
    if (finish.narrowed) {
        auto* out = static_cast<__nv_bfloat16*>(finish.narrowed);
        finish_rows<<<blocks, kThreads, 0, stream>>>(finish, weight, out);
    } else {
        finish_rows<<<blocks, kThreads, 0, stream>>>(finish, weight, finish.accumulator);
    }
}

}  // namespace

const char* logprob_tile(const Tile& tile, void* stream) {
    const auto on = static_cast<cudaStream_t>(stream);
    if (tile.N == 0 || tile.C == 0) return nullptr;
    if (tile.narrowed) {
        launch_tile(tile, static_cast<__nv_bfloat16*>(tile.narrowed), on);
    } else {
        launch_tile(tile, tile.accumulator ? tile.products : nullptr, on);
    }
    return launch_error();
}

const char* logprob_finish(const Finish& finish, void* stream) {
    const auto on = static_cast<cudaStream_t>(stream);
    if (finish.N == 0) return nullptr;
    if (finish.weight_type == MatrixType::kFloat32) {
        launch_finish(finish, static_cast<const float*>(finish.weight), on);
    } else {
        launch_finish(finish, static_cast<const __nv_bfloat16*>(finish.weight), on);
    }
    return launch_error();
}

}  // namespace daj::cuda
