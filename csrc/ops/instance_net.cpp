// The weighting net's schema and its CPU side. Python sees it as torch.ops.daj.instance_net_hypergrad.
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "instance_net_checks.h"

namespace daj {
namespace {

std::tuple<Tensor, Tensor> instance_net_hypergrad_cpu(Tensor features, Tensor parameters, Tensor derivative,
                                                      int64_t hidden) {
    const InstanceNet net = check_instance_net(features, parameters, derivative, hidden);
    const int64_t B = features.size(0);
    Tensor weights = torch::stable::new_empty(features, {B});
    Tensor gradient = torch::stable::new_empty(features, {net.size()});
    cpu::instance_net_hypergrad(net, features.const_data_ptr<float>(), parameters.const_data_ptr<float>(),
                                derivative.const_data_ptr<float>(), weights.mutable_data_ptr<float>(),
                                gradient.mutable_data_ptr<float>(), B);
    return {weights, gradient};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(daj, library) {
    library.def(
        "instance_net_hypergrad(Tensor features, Tensor parameters, Tensor derivative, int hidden) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(daj, CPU, library) {
    library.impl("instance_net_hypergrad", TORCH_BOX(&instance_net_hypergrad_cpu));
}

}  // namespace daj
