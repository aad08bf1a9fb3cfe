// Adam's update differentiated by its gradient, elementwise.
//
//     u = lr (m / bc1) / D,   m = b1 m0 + (1 - b1) g,   v = b2 v0 + (1 - b2) g^2,   s = sqrt(v / bc2),   D = s + eps
//     J = du/dg = lr [(1 - b1)(b2 v0 / s + eps bc2) - b1 (1 - b2) m0 (g / s)] / (bc1 bc2 D^2)
//
// with bc1 = 1 - b1^step, bc2 = 1 - b2^step and m0, v0 the moments before the step. The textbook form subtracts two
// nearly equal numbers in the first step; this one does not, and neither s^2 nor D^2 has to be a normal float.
// Where s = 0 the terms with 1/s are 0, which leaves the limit lr (1 - b1) / (bc1 eps).
#pragma once

#include <cmath>
#include <cstdint>

#include "daj/device.h"

namespace daj {

// The numbers of a step, put together in double.
struct AdamStep {
    AdamStep(double lr, double beta1, double beta2, double eps, int64_t step) : eps(static_cast<float>(eps)) {
        const double bc1 = 1 - std::pow(beta1, static_cast<double>(step));
        const double bc2 = 1 - std::pow(beta2, static_cast<double>(step));
        kept = static_cast<float>(beta2 / bc2);
        entering = static_cast<float>((1 - beta2) / bc2);
        of_v0 = static_cast<float>(lr * (1 - beta1) * beta2 / (bc1 * bc2));
        of_m0 = static_cast<float>(lr * beta1 * (1 - beta2) / (bc1 * bc2));
        of_eps = static_cast<float>(lr * (1 - beta1) * eps / bc1);
    }

    float eps, kept, entering, of_v0, of_m0, of_eps;
};

// J of one parameter.
DAJ_HD float adam_jacobian(const AdamStep& step, float g, float m0, float v0) {
    const float s = sqrtf(step.kept * v0 + step.entering * g * g);
    const float inverse_s = s == 0 ? 0 : 1 / s, inverse_d = 1 / (s + step.eps);
    const float numerator = step.of_v0 * (v0 * inverse_s) + step.of_eps - step.of_m0 * m0 * (g * inverse_s);
    return numerator * inverse_d * inverse_d;
}

}  // namespace daj
