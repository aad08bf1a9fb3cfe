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

// The operands of Adam's Jacobian, one float32 for each column of the bank, and the step's number.
inline AdamVector check_adam(const Tensor& bank, const Tensor& vector, const Tensor& gradient, const Tensor& m0,
                             const Tensor& v0, double lr, double beta1, double beta2, double eps, int64_t step) {
    const int64_t P = bank.size(1);
    check_operand("vector", vector, P, bank);
    check_operand("gradient", gradient, P, bank);
    check_operand("m0", m0, P, bank);
    check_operand("v0", v0, P, bank);
    STD_TORCH_CHECK(step >= 1, "step counts Adam's steps from 1; got ", step);
    return {AdamStep(lr, beta1, beta2, eps, step), vector.const_data_ptr<float>(), gradient.const_data_ptr<float>(),
            m0.const_data_ptr<float>(), v0.const_data_ptr<float>()};
}

}  // namespace daj
