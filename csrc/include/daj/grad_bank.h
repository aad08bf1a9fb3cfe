// The gradient bank: raw pointers in, raw pointers out.
//
// No header in this folder knows torch, so that csrc/cpu and csrc/cuda compile without it (and the latter
// without a GPU). csrc/ops checks every argument before it calls; these functions trust what they get.
// Letters: K rows of a gradient bank, P adapter parameters.
#pragma once

#include <cstdint>

#include "daj/adam.h"

namespace daj {

enum class BankType { kFloat32, kBFloat16 };

// y = J o vector for Adam's Jacobian J at a gradient; each (P,).
struct AdamVector {
    AdamStep step;
    const float* vector;
    const float* gradient;
    const float* m0;
    const float* v0;
};

namespace cpu {

// Columns of one partial sum. Fixed, so that a result does not depend on the number of threads; 4096
// floats (16 KiB) leave room for the rows beside them in a first-level cache.
constexpr int64_t kColumnsPerBlock = 4096;

inline int64_t num_blocks(int64_t P) { return (P + kColumnsPerBlock - 1) / kColumnsPerBlock; }

// partials[k * num_blocks(P) + b] = sum over the columns p of block b of bank[k, p] * vector[p],
// for first_block <= b < last_block. The caller adds the blocks up, in order.
void grad_bank_dot(const void* bank, BankType type, const float* vector, double* partials, int64_t K, int64_t P,
                   int64_t first_block, int64_t last_block);

// The same with y in place of the vector, and one row more: partials[K * num_blocks(P) + b] is of gradient[p] * y[p].
void grad_bank_dot_adam(const void* bank, BankType type, const AdamVector& y, double* partials, int64_t K, int64_t P,
                        int64_t first_block, int64_t last_block);

// out[p] = sum over k of weights[k] * bank[k, p], for the columns p of first_block <= b < last_block.
void grad_bank_combine(const void* bank, BankType type, const float* weights, float* out, int64_t K, int64_t P,
                       int64_t first_block, int64_t last_block);

}  // namespace cpu

namespace cuda {

// Floats of scratch memory that grad_bank_dot needs on the device for K rows.
int64_t grad_bank_dot_scratch(int64_t K, int64_t P);

// out[k] = sum over p of bank[k, p] * vector[p]. Returns nullptr, or CUDA's text of the error.
const char* grad_bank_dot(const void* bank, BankType type, const float* vector, float* scratch, float* out, int64_t K,
                          int64_t P, void* stream);

// The same with y in place of the vector; out[K] = sum over p of gradient[p] * y[p]. The scratch is that of K + 1 rows.
const char* grad_bank_dot_adam(const void* bank, BankType type, const AdamVector& y, float* scratch, float* out,
                               int64_t K, int64_t P, void* stream);

// out[p] = sum over k of weights[k] * bank[k, p]. Returns nullptr, or CUDA's text of the error.
const char* grad_bank_combine(const void* bank, BankType type, const float* weights, float* out, int64_t K, int64_t P,
                              void* stream);

}  // namespace cuda
}  // namespace daj
