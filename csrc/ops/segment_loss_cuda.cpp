// The CUDA side of the segment losses.
#include <torch/csrc/stable/accelerator.h>

#include "launch.h"
#include "segment_loss_ops.h"

namespace daj {
namespace {

void preference_on_cuda(const PreferenceArguments& given, int64_t B, int64_t, const Tensor& logp) {
    const torch::stable::accelerator::DeviceGuard guard(logp.get_device_index());
    check_launch("segment_preference_loss", cuda::segment_preference_loss(given, B, current_stream(logp)));
}

void policy_on_cuda(const PolicyArguments& given, int64_t B, int64_t, const Tensor& logp) {
    const torch::stable::accelerator::DeviceGuard guard(logp.get_device_index());
    check_launch("segment_policy_loss", cuda::segment_policy_loss(given, B, current_stream(logp)));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(daj, CUDA, library) {
    library.impl("segment_preference_loss", TORCH_BOX(&segment_preference_loss<&preference_on_cuda>));
    library.impl("segment_policy_loss", TORCH_BOX(&segment_policy_loss<&policy_on_cuda>));
}

}  // namespace daj
