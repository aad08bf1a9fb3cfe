// The segment losses' operators, but for the launch: what they demand of their tensors, and their results.
//
// A backend is the template's argument: launch(given, B, N, logp).
#pragma once

#include <torch/csrc/stable/ops.h>

#include <optional>
#include <tuple>

#include "checks.h"
#include "daj/segment_loss.h"

namespace daj {

// How many samples there are: offsets (R + 1,) int64 beside logp (N,) float32, n rows a sample.
inline int64_t check_segments(const Tensor& logp, const Tensor& offsets, int64_t n) {
    STD_TORCH_CHECK(logp.dim() == 1, "logp needs the shape (N,): the tokens of all rows, row after row; got ",
                    shape_of(logp));
    STD_TORCH_CHECK(logp.scalar_type() == ScalarType::Float,
                    "logp needs float32 here (daj_lightning.kernels serves float64 as well); got ", logp.scalar_type());
    check_contiguous("logp", logp);
    STD_TORCH_CHECK(offsets.dim() == 1 && offsets.size(0) > 0,
                    "offsets needs the shape (R + 1,): where each row starts, and the end; got ", shape_of(offsets));
    const int64_t R = offsets.size(0) - 1;
    check_vector("offsets", offsets, R + 1, "R rows", logp, ScalarType::Long);
    STD_TORCH_CHECK(n > 0 && R % n == 0, "offsets needs ", n, " rows for each sample; got ", R, " rows");
    return R / n;
}

// Letters of the sizes, for messages.
constexpr const char *kSamples = "B samples", *kRows = "R rows", *kTokens = "N tokens";

// A tensor's entries, or nullptr where it was not given.
inline const float* floats(const char* name, const std::optional<Tensor>& tensor, int64_t size, const char* of,
                           const Tensor& logp) {
    if (!tensor.has_value()) return nullptr;
    check_vector(name, *tensor, size, of, logp);
    return tensor->const_data_ptr<float>();
}

inline const bool* bools(const char* name, const std::optional<Tensor>& tensor, int64_t size, const char* of,
                         const Tensor& logp) {
    if (!tensor.has_value()) return nullptr;
    check_vector(name, *tensor, size, of, logp, ScalarType::Bool);
    return tensor->const_data_ptr<bool>();
}

template <auto launch>
std::tuple<Tensor, Tensor> segment_preference_loss(Tensor logp, Tensor offsets, int64_t kind_number,
                                                   std::optional<Tensor> reference, std::optional<Tensor> kl,
                                                   std::optional<Tensor> desirable, std::optional<Tensor> counted,
                                                   std::optional<Tensor> weights, double beta, double nll_weight,
                                                   double desirable_weight, double undesirable_weight) {
    STD_TORCH_CHECK(0 <= kind_number && kind_number <= 3,
                    "kind needs to be 0 (dpo), 1 (kto), 2 (orpo) or 3 (sft); got ", kind_number);
    const Preference kind = static_cast<Preference>(kind_number);
    const bool is_dpo = kind == Preference::kDpo, is_kto = kind == Preference::kKto;
    STD_TORCH_CHECK(reference.has_value() || !(is_dpo || is_kto), "dpo and kto need reference, (R,) float32");
    STD_TORCH_CHECK((kl.has_value() && desirable.has_value()) || !is_kto,
                    "kto needs kl, (B,) float32, and desirable, (B,) bool");
    STD_TORCH_CHECK(!counted.has_value() || kind == Preference::kOrpo, "counted is of orpo alone. Leave it out");
    const int64_t n = rows_per_sample(kind), B = check_segments(logp, offsets, n), N = logp.size(0);
    Tensor loss = torch::stable::new_empty(logp, {B}), coefficient = torch::stable::new_empty(logp, {N});
    launch(PreferenceArguments{kind, logp.const_data_ptr<float>(), offsets.const_data_ptr<int64_t>(),
                               floats("reference", reference, n * B, kRows, logp),
                               floats("kl", kl, B, kSamples, logp), bools("desirable", desirable, B, kSamples, logp),
                               bools("counted", counted, N, kTokens, logp),
                               floats("weights", weights, B, kSamples, logp), beta, nll_weight, desirable_weight,
                               undesirable_weight, loss.mutable_data_ptr<float>(),
                               coefficient.mutable_data_ptr<float>()},
           B, N, logp);
    return {loss, coefficient};
}

template <auto launch>
std::tuple<Tensor, Tensor> segment_policy_loss(Tensor logp, Tensor offsets, Tensor advantages, Tensor divisors,
                                               int64_t rows_per_sample, std::optional<Tensor> old,
                                               std::optional<Tensor> sampled, std::optional<Tensor> reference,
                                               std::optional<Tensor> weights, double epsilon, double epsilon_high,
                                               double beta, bool unbiased_kl, double importance_cap) {
    const int64_t n = rows_per_sample, B = check_segments(logp, offsets, n), N = logp.size(0);
    check_vector("divisors", divisors, n * B, kRows, logp, ScalarType::Long);
    const PolicyOptions options{static_cast<float>(1 - epsilon), static_cast<float>(1 + epsilon_high),
                                static_cast<float>(importance_cap), static_cast<float>(beta), unbiased_kl};
    Tensor loss = torch::stable::new_empty(logp, {B}), coefficient = torch::stable::new_empty(logp, {N});
    launch(PolicyArguments{logp.const_data_ptr<float>(), offsets.const_data_ptr<int64_t>(),
                           floats("advantages", advantages, n * B, kRows, logp), divisors.const_data_ptr<int64_t>(),
                           floats("old", old, N, kTokens, logp), floats("sampled", sampled, N, kTokens, logp),
                           floats("reference", reference, N, kTokens, logp),
                           floats("weights", weights, B, kSamples, logp), n, options, loss.mutable_data_ptr<float>(),
                           coefficient.mutable_data_ptr<float>()},
           B, N, logp);
    return {loss, coefficient};
}

}  // namespace daj
