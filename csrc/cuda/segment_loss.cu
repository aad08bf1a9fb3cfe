// Losses of samples on a GPU: one launch, a block for each sample.
//
// Deterministic: no atomics, and the order of every sum depends on the offsets alone. A block's threads all
// compute the sample's formula: that is as fast as one thread which tells the others.
#include <cuda_runtime.h>

#include <cstdint>

#include "common.cuh"
#include "daj/segment_loss.h"

namespace daj::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
// A window has fewer samples than a GPU has multiprocessors: registers are cheaper than a second block.
constexpr int kBlocksPerSM = 1;

// The sum over the block's threads, in every thread. `warp_sums` must not be in use by an earlier sum.
template <typename T>
__device__ __forceinline__ T block_sum(T x, T (&warp_sums)[kWarps]) {
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = x;
    __syncthreads();
    T total = 0;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) total += warp_sums[warp];
    return total;
}

struct RowScratch {
    double all[kWarps], counted[kWarps];
    int num_counted[kWarps];
};

__device__ __forceinline__ RowSum row_sum(const PreferenceArguments& given, int64_t row, RowScratch& scratch) {
    const int64_t begin = given.offsets[row], end = given.offsets[row + 1];
    double all = 0, counted = 0;
    int num_counted = 0;
#pragma unroll 4
    for (int64_t t = begin + threadIdx.x; t < end; t += kThreads) {
        const float logp = given.logp[t];
        const bool counts = !given.counted || given.counted[t];
        all += logp;
        counted += counts ? logp : 0.0f;
        num_counted += counts;
    }
    RowSum sum;
    sum.all = block_sum(all, scratch.all);
    sum.counted = block_sum(counted, scratch.counted);
    sum.num_all = end - begin;
    sum.num_counted = block_sum(num_counted, scratch.num_counted);
    return sum;
}

__device__ __forceinline__ void write_row(const PreferenceArguments& given, int64_t row, const RowSlope& slope,
                                          double weight) {
    const float counted = static_cast<float>(weight * slope.counted), other = static_cast<float>(weight * slope.other);
    const int64_t end = given.offsets[row + 1];
    for (int64_t t = given.offsets[row] + threadIdx.x; t < end; t += kThreads) {
        given.coefficient[t] = !given.counted || given.counted[t] ? counted : other;
    }
}

__global__ void __launch_bounds__(kThreads, kBlocksPerSM) preference_samples(const PreferenceArguments given) {
    __shared__ RowScratch first_scratch, second_scratch;
    const int n = rows_per_sample(given.kind);
    const int64_t b = blockIdx.x;
    const RowSum first_row = row_sum(given, n * b, first_scratch);
    RowSum second_row;
    if (n == 2) second_row = row_sum(given, n * b + 1, second_scratch);
    const SampleLoss loss = sample_loss(given, b, first_row, second_row);
    const double weight = given.weights ? given.weights[b] : 1.0;
    if (threadIdx.x == 0) given.loss[b] = static_cast<float>(weight * loss.value);
    write_row(given, n * b, loss.first, weight);
    if (n == 2) write_row(given, n * b + 1, loss.second, weight);
}

__global__ void __launch_bounds__(kThreads, kBlocksPerSM) policy_samples(const PolicyArguments given) {
    __shared__ double scratch[kWarps];
    const int64_t b = blockIdx.x, n = given.rows_per_sample;
    const double weight = given.weights ? given.weights[b] : 1.0;
    double total = 0;
    for (int64_t row = n * b; row < n * (b + 1); ++row) {
        const int64_t end = given.offsets[row + 1];
        const float advantage = given.advantages[row];
        const double divisor = static_cast<double>(given.divisors[row]), scale = weight / divisor;
        double row_total = 0;
#pragma unroll 2
        for (int64_t t = given.offsets[row] + threadIdx.x; t < end; t += kThreads) {
            const TokenLoss loss = token_loss(given, t, advantage);
            row_total += loss.value;
            given.coefficient[t] = static_cast<float>(scale * loss.by_logp);
        }
        total += row_total / divisor;
    }
    total = block_sum(total, scratch);
    if (threadIdx.x == 0) given.loss[b] = static_cast<float>(weight * total);
}

}  // namespace

const char* segment_preference_loss(const PreferenceArguments& given, int64_t B, void* stream) {
    if (B == 0) return nullptr;
    preference_samples<<<static_cast<unsigned>(B), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(given);
    return launch_error();
}

const char* segment_policy_loss(const PolicyArguments& given, int64_t B, void* stream) {
    if (B == 0) return nullptr;
    policy_samples<<<static_cast<unsigned>(B), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(given);
    return launch_error();
}

}  // namespace daj::cuda
