// The gradient bank on a CPU: every op reads every row once and is bound by memory.
//
// One row is one stream of memory, and a core fetches several streams at once faster than one after
// another. So the rows go through in groups. Not all sixteen at once: that many streams took four times as long
// where their addresses differ by little more than a multiple of a page.
#include "daj/grad_bank.h"
#include "daj/simd.h"

#include <algorithm>

namespace daj::cpu {
namespace {

constexpr int kGroup = 4;  // rows that go through together

// sums[r] = sum over n columns of row r times vector, for `Rows` rows that lie P apart. Eight lanes
// times two accumulators keep at most 256 additions in float; the rest is added in double.
template <int Rows, typename T>
DAJ_INLINE void dot_rows(const T* rows, int64_t P, const float* vector, int64_t n, double* sums) {
    Floats even[Rows] = {}, odd[Rows] = {};
    int64_t p = 0;
    for (; p + 2 * kLanes <= n; p += 2 * kLanes) {
        const Floats left = load(vector + p), right = load(vector + p + kLanes);
        for (int r = 0; r < Rows; ++r) {
            even[r] += load(rows + r * P + p) * left;
            odd[r] += load(rows + r * P + p + kLanes) * right;
        }
    }
    for (int r = 0; r < Rows; ++r) {
        sums[r] = sum(even[r] + odd[r]);
        for (int64_t q = p; q < n; ++q) sums[r] += static_cast<double>(to_float(rows[r * P + q])) * vector[q];
    }
}

// `vector` holds the columns of this block alone.
template <typename T>
DAJ_INLINE void dot_block(const T* bank, const float* vector, double* partials, int64_t K, int64_t P, int64_t block) {
    const int64_t begin = block * kColumnsPerBlock, n = std::min(kColumnsPerBlock, P - begin), B = num_blocks(P);
    double sums[kGroup];
    int64_t k = 0;
    for (; k + kGroup <= K; k += kGroup) {
        dot_rows<kGroup>(bank + k * P + begin, P, vector, n, sums);
        for (int r = 0; r < kGroup; ++r) partials[(k + r) * B + block] = sums[r];
    }
    for (; k < K; ++k) dot_rows<1>(bank + k * P + begin, P, vector, n, partials + k * B + block);
}

// y is computed once a block and stays in the first-level cache while the rows pass.
template <typename T>
DAJ_INLINE void dot_block_adam(const T* bank, const AdamVector& of, double* partials, int64_t K, int64_t P,
                               int64_t block) {
    const int64_t begin = block * kColumnsPerBlock, n = std::min(kColumnsPerBlock, P - begin);
    const AdamStep step = of.step;
    float y[kColumnsPerBlock];
    for (int64_t i = 0; i < n; ++i) {
        const int64_t p = begin + i;
        y[i] = adam_jacobian(step, of.gradient[p], of.m0[p], of.v0[p]) * of.vector[p];
    }
    dot_block(bank, y, partials, K, P, block);
    dot_rows<1>(of.gradient + begin, P, y, n, partials + K * num_blocks(P) + block);
}

// out[p] += sum over r of weights[r] * rows[r][p], in the first-level cache, for `Rows` rows that lie P apart and n columns.
template <int Rows, typename T>
DAJ_INLINE void add_rows(const T* rows, const float* weights, float* out, int64_t P, int64_t n) {
    Floats factors[Rows];
    for (int r = 0; r < Rows; ++r) factors[r] = broadcast(weights[r]);
    int64_t p = 0;
    for (; p + kLanes <= n; p += kLanes) {
        Floats total = load(out + p);
        for (int r = 0; r < Rows; ++r) total += factors[r] * load(rows + r * P + p);
        store(out + p, total);
    }
    for (; p < n; ++p) {
        for (int r = 0; r < Rows; ++r) out[p] += weights[r] * to_float(rows[r * P + p]);
    }
}

template <typename T>
DAJ_INLINE void combine_block(const T* bank, const float* weights, float* out, int64_t K, int64_t P, int64_t block) {
    const int64_t begin = block * kColumnsPerBlock, n = std::min(kColumnsPerBlock, P - begin);
    std::fill_n(out + begin, n, 0.0f);
    int64_t k = 0;
    for (; k + kGroup <= K; k += kGroup) add_rows<kGroup>(bank + k * P + begin, weights + k, out + begin, P, n);
    for (; k < K; ++k) add_rows<1>(bank + k * P + begin, weights + k, out + begin, P, n);
}

}  // namespace

DAJ_SIMD_CLONES
void grad_bank_dot(const void* bank, BankType type, const float* vector, double* partials, int64_t K, int64_t P,
                   int64_t first_block, int64_t last_block) {
    for (int64_t block = first_block; block < last_block; ++block) {
        if (type == BankType::kFloat32) {
            dot_block(static_cast<const float*>(bank), vector + block * kColumnsPerBlock, partials, K, P, block);
        } else {
            dot_block(static_cast<const BFloat16*>(bank), vector + block * kColumnsPerBlock, partials, K, P, block);
        }
    }
}

DAJ_SIMD_CLONES
void grad_bank_dot_adam(const void* bank, BankType type, const AdamVector& y, double* partials, int64_t K, int64_t P,
                        int64_t first_block, int64_t last_block) {
    for (int64_t block = first_block; block < last_block; ++block) {
        if (type == BankType::kFloat32) {
            dot_block_adam(static_cast<const float*>(bank), y, partials, K, P, block);
        } else {
            dot_block_adam(static_cast<const BFloat16*>(bank), y, partials, K, P, block);
        }
    }
}

DAJ_SIMD_CLONES
void grad_bank_combine(const void* bank, BankType type, const float* weights, float* out, int64_t K, int64_t P,
                       int64_t first_block, int64_t last_block) {
    for (int64_t block = first_block; block < last_block; ++block) {
        if (type == BankType::kFloat32) {
            combine_block(static_cast<const float*>(bank), weights, out, K, P, block);
        } else {
            combine_block(static_cast<const BFloat16*>(bank), weights, out, K, P, block);
        }
    }
}

}  // namespace daj::cpu
