// The segment losses' schemas and their CPU side. Python sees them as torch.ops.daj.*.
#include <algorithm>

#include "segment_loss_ops.h"

namespace daj {
namespace {

// Tokens that are worth waking a thread for: about 0.1 ms of exponentials.
constexpr int64_t kTokensPerTask = 16384;

int64_t samples_per_task(int64_t B, int64_t N) {
    return std::max<int64_t>(1, B * kTokensPerTask / std::max<int64_t>(1, N));
}

// The kernels read and write where the offsets say. (A GPU's could only be read by waiting for it.)
void check_offsets(const int64_t* offsets, int64_t R, int64_t N) {
    STD_TORCH_CHECK(offsets[0] == 0 && offsets[R] == N && std::is_sorted(offsets, offsets + R + 1),
                    "offsets needs to rise from 0 to the ", N, " tokens of logp; got ", offsets[0], " to ", offsets[R],
                    std::is_sorted(offsets, offsets + R + 1) ? "" : ", falling in between");
}

void preference_on_cpu(const PreferenceArguments& given, int64_t B, int64_t N, const Tensor&) {
    check_offsets(given.offsets, rows_per_sample(given.kind) * B, N);
    torch::stable::parallel_for(0, B, samples_per_task(B, N), [&](int64_t first, int64_t last) {
        cpu::segment_preference_loss(given, first, last);
    });
}

void policy_on_cpu(const PolicyArguments& given, int64_t B, int64_t N, const Tensor&) {
    check_offsets(given.offsets, given.rows_per_sample * B, N);
    torch::stable::parallel_for(0, B, samples_per_task(B, N), [&](int64_t first, int64_t last) {
        cpu::segment_policy_loss(given, first, last);
    });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(daj, library) {
    library.def(
        "segment_preference_loss(Tensor logp, Tensor offsets, int kind, Tensor? reference, Tensor? kl, "
        "Tensor? desirable, Tensor? counted, Tensor? weights, float beta, float nll_weight, float desirable_weight, "
        "float undesirable_weight) -> (Tensor, Tensor)");
    library.def(
        "segment_policy_loss(Tensor logp, Tensor offsets, Tensor advantages, Tensor divisors, int rows_per_sample, "
        "Tensor? old, Tensor? sampled, Tensor? reference, Tensor? weights, float epsilon, float epsilon_high, "
        "float beta, bool unbiased_kl, float importance_cap) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(daj, CPU, library) {
    library.impl("segment_preference_loss", TORCH_BOX(&segment_preference_loss<&preference_on_cpu>));
    library.impl("segment_policy_loss", TORCH_BOX(&segment_policy_loss<&policy_on_cpu>));
}

}  // namespace daj
