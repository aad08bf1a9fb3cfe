// What both backends demand of a bank and its operands.
#pragma once

#include "checks.h"
#include "daj/grad_bank.h"

namespace daj {

// A bank (K, P) of float32 or bfloat16, contiguous.
inline BankType check_bank(const Tensor& bank) {
    STD_TORCH_CHECK(bank.dim() == 2, "bank needs the shape (K, P): one row per sample; got ", shape_of(bank));
    STD_TORCH_CHECK(bank.is_contiguous(), "bank ", shape_of(bank), " needs contiguous rows; got strides (",
                    bank.stride(0), ", ", bank.stride(1), "). Call .contiguous() on it");
    const ScalarType type = bank.scalar_type();
    STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::BFloat16,
                    "bank needs float32 or bfloat16 here (daj_lightning.kernels serves float64 as well); got ", type);
    return type == ScalarType::Float ? BankType::kFloat32 : BankType::kBFloat16;
}

// The other operand: one float32 for each of `size` rows or columns of the bank, beside it.
inline void check_operand(const char* name, const Tensor& operand, int64_t size, const Tensor& bank) {
    check_vector(name, operand, size, "a bank of shape " + shape_of(bank), bank);
}

}  // namespace daj
