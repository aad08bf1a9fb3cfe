// What the ops demand of their tensors, checked at the door.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <sstream>
#include <string>

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

// As Python calls it.
inline const char* name_of(ScalarType type) {
    switch (type) {
        case ScalarType::Float: return "float32";
        case ScalarType::BFloat16: return "bfloat16";
        case ScalarType::Long: return "int64";
        case ScalarType::Bool: return "bool";
        default: return "another dtype";
    }
}

inline void check_contiguous(const char* name, const Tensor& tensor) {
    STD_TORCH_CHECK(tensor.is_contiguous(), name, " ", shape_of(tensor),
                    " needs contiguous memory. Call .contiguous() on it");
}

// A vector of `size` entries of one type, contiguous, beside `other`. `why` says where the size comes from.
inline void check_vector(const char* name, const Tensor& tensor, int64_t size, const std::string& why,
                         const Tensor& other, ScalarType type = ScalarType::Float) {
    STD_TORCH_CHECK(tensor.dim() == 1 && tensor.size(0) == size, name, " needs the shape (", size, ") for ", why,
                    "; got ", shape_of(tensor));
    STD_TORCH_CHECK(tensor.scalar_type() == type, name, " needs ", name_of(type), "; got ",
                    tensor.scalar_type());
    check_contiguous(name, tensor);
    STD_TORCH_CHECK(tensor.is_cuda() == other.is_cuda() && tensor.get_device_index() == other.get_device_index(), name,
                    " needs to lie on one device with the other tensors; got ", tensor.is_cuda() ? "cuda:" : "cpu:",
                    tensor.get_device_index(), " beside ", other.is_cuda() ? "cuda:" : "cpu:",
                    other.get_device_index());
}

}  // namespace daj
