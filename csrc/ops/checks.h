// What both backends demand of an op's tensors, checked at the door.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <sstream>
#include <string>

#include "daj/launch.h"

namespace daj {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline std::string shape_of(const Tensor& tensor) {
    std::ostringstream text;
    text << '(';
    for (int64_t d = 0; d < tensor.dim(); ++d) text << (d ? ", " : "") << tensor.size(d);
    text << ')';
    return text.str();
}

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
    STD_TORCH_CHECK(operand.dim() == 1 && operand.size(0) == size, name, " needs the shape (", size,
                    ") for a bank of shape ", shape_of(bank), "; got ", shape_of(operand));
    STD_TORCH_CHECK(operand.scalar_type() == ScalarType::Float, name, " needs float32; got ", operand.scalar_type());
    STD_TORCH_CHECK(operand.is_contiguous(), name, " needs contiguous elements; got stride ", operand.stride(0),
                    ". Call .contiguous() on it");
    STD_TORCH_CHECK(operand.is_cuda() == bank.is_cuda() && operand.get_device_index() == bank.get_device_index(), name,
                    " needs to lie on the bank's device; got ", operand.is_cuda() ? "cuda:" : "cpu:",
                    operand.get_device_index(), " for a bank on ", bank.is_cuda() ? "cuda:" : "cpu:",
                    bank.get_device_index());
}

}  // namespace daj
