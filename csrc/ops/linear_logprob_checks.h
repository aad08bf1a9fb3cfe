// What both backends demand of the tensors of the vocabulary pass's steps.
#pragma once

#include <optional>

#include "checks.h"
#include "daj/linear_logprob.h"

namespace daj {

using MaybeTensor = std::optional<Tensor>;

// (rows, columns) of one type, contiguous. `columns` < 0: any number.
inline void check_matrix(const char* name, const Tensor& tensor, int64_t rows, int64_t columns, ScalarType type) {
    STD_TORCH_CHECK(tensor.dim() == 2 && tensor.size(0) == rows && (columns < 0 || tensor.size(1) == columns), name,
                    " needs ", rows, " rows", columns < 0 ? "" : " of " + std::to_string(columns), "; got the shape ",
                    shape_of(tensor));
    STD_TORCH_CHECK(tensor.scalar_type() == type, name, " needs ", name_of(type), "; got ", tensor.scalar_type());
    check_contiguous(name, tensor);
}

inline Logits check_logits(double scale, double softcap, double temperature) {
    STD_TORCH_CHECK(softcap >= 0 && temperature > 0, "softcap needs to be >= 0 (0: none) and temperature > 0; got ",
                    softcap, " and ", temperature);
    return {static_cast<float>(scale), static_cast<float>(softcap), static_cast<float>(temperature)};
}

inline Tile check_tile(Tensor& products, const MaybeTensor& narrowed, Tensor& state, const MaybeTensor& accumulator,
                       const Tensor& targets, const MaybeTensor& bias, int64_t first, double scale, double softcap,
                       double temperature) {
    STD_TORCH_CHECK(products.dim() == 2, "products needs the shape (N, C); got ", shape_of(products));
    const int64_t N = products.size(0), C = products.size(1);
    STD_TORCH_CHECK(C <= kMostColumns, "products needs at most ", kMostColumns, " columns; got ", C,
                    ". Use smaller tiles");
    check_matrix("products", products, N, C, ScalarType::Float);
    check_matrix("state", state, 4, N, ScalarType::Float);
    check_vector("targets", targets, N, "products of shape " + shape_of(products), products, ScalarType::Long);
    if (narrowed) check_matrix("narrowed", *narrowed, N, C, ScalarType::BFloat16);
    if (accumulator) check_matrix("accumulator", *accumulator, N, -1, ScalarType::Float);
    if (bias) check_vector("bias", *bias, C, "products of shape " + shape_of(products), products);
    return {products.mutable_data_ptr<float>(),
            narrowed ? narrowed->mutable_data_ptr() : nullptr,
            state.mutable_data_ptr<float>(),
            accumulator ? accumulator->mutable_data_ptr<float>() : nullptr,
            targets.const_data_ptr<int64_t>(),
            bias ? bias->const_data_ptr<float>() : nullptr,
            N,
            C,
            accumulator ? accumulator->size(1) : 0,
            first,
            check_logits(scale, softcap, temperature)};
}

inline Finish check_finish(const Tensor& state, const MaybeTensor& accumulator, const Tensor& weight,
                           const Tensor& targets, double scale, double softcap, double temperature, Tensor& logp,
                           Tensor& lse, const MaybeTensor& entropy, const MaybeTensor& narrowed) {
    STD_TORCH_CHECK(weight.dim() == 2 && weight.size(0) > 0, "weight needs the shape (V, H); got ", shape_of(weight));
    const ScalarType type = weight.scalar_type();
    STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::BFloat16,
                    "weight needs float32 or bfloat16 here; got ", type);
    check_contiguous("weight", weight);
    STD_TORCH_CHECK(targets.dim() == 1, "targets needs the shape (N); got ", shape_of(targets));
    const int64_t N = targets.size(0), V = weight.size(0), H = weight.size(1);
    const std::string why = std::to_string(N) + " targets";
    check_matrix("state", state, 4, N, ScalarType::Float);
    check_vector("targets", targets, N, why, state, ScalarType::Long);
    check_vector("logp", logp, N, why, state);
    check_vector("lse", lse, N, why, state);
    if (entropy) check_vector("entropy", *entropy, N, why, state);
    if (accumulator) check_matrix("accumulator", *accumulator, N, H, ScalarType::Float);
    if (narrowed) check_matrix("narrowed", *narrowed, N, H, ScalarType::BFloat16);
    return {state.const_data_ptr<float>(),
            accumulator ? accumulator->mutable_data_ptr<float>() : nullptr,
            weight.const_data_ptr(),
            type == ScalarType::Float ? MatrixType::kFloat32 : MatrixType::kBFloat16,
            targets.const_data_ptr<int64_t>(),
            logp.mutable_data_ptr<float>(),
            lse.mutable_data_ptr<float>(),
            entropy ? entropy->mutable_data_ptr<float>() : nullptr,
            narrowed ? narrowed->mutable_data_ptr() : nullptr,
            N,
            H,
            V,
            check_logits(scale, softcap, temperature)};
}

}  // namespace daj
