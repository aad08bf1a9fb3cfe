// The weighting net's CUDA side.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "instance_net_checks.h"
#include "launch.h"

namespace daj {
namespace {

std::tuple<Tensor, Tensor> instance_net_hypergrad_cuda(Tensor features, Tensor parameters, Tensor derivative,
                                                       int64_t hidden) {
    const InstanceNet net = check_instance_net(features, parameters, derivative, hidden);
    const int64_t B = features.size(0);
    const torch::stable::accelerator::DeviceGuard guard(features.get_device_index());
    Tensor weights = torch::stable::new_empty(features, {B});
    Tensor gradient = torch::stable::new_empty(features, {net.size()});
    check_launch("instance_net_hypergrad",
                 cuda::instance_net_hypergrad(net, features.const_data_ptr<float>(), parameters.const_data_ptr<float>(),
                                              derivative.const_data_ptr<float>(), weights.mutable_data_ptr<float>(),
                                              gradient.mutable_data_ptr<float>(), B, current_stream(features)));
    return {weights, gradient};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(daj, CUDA, library) {
    library.impl("instance_net_hypergrad", TORCH_BOX(&instance_net_hypergrad_cuda));
}

}  // namespace daj
