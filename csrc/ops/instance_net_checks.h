// What both backends demand of the weighting net and its operands.
#pragma once

#include "checks.h"
#include "daj/instance_net.h"

namespace daj {

inline InstanceNet check_instance_net(const Tensor& features, const Tensor& parameters, const Tensor& derivative,
                                      int64_t hidden) {
    STD_TORCH_CHECK(features.dim() == 2, "features needs the shape (B, F): one row per sample; got ",
                    shape_of(features));
    STD_TORCH_CHECK(features.scalar_type() == ScalarType::Float, "features needs float32 here "
                    "(daj_lightning.kernels serves float64 as well); got ", features.scalar_type());
    check_contiguous("features", features);
    const int64_t B = features.size(0), F = features.size(1);
    STD_TORCH_CHECK(1 <= F && F <= kMaxFeatures && 1 <= hidden && hidden <= kMaxHidden, "the net here has 1 to ",
                    kMaxFeatures, " features and 1 to ", kMaxHidden, " hidden units; got ", F, " and ", hidden,
                    ". daj_lightning.kernels serves others in plain torch");
    const InstanceNet net{static_cast<int>(F), static_cast<int>(hidden)};
    check_vector("parameters", parameters, net.size(),
                 std::to_string(F) + " features and " + std::to_string(hidden) + " hidden units", features);
    check_vector("derivative", derivative, B, "features of shape " + shape_of(features), features);
    return net;
}

}  // namespace daj
