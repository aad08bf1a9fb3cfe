// The weighting net: alpha = squareplus(w3 . tanh(W2 tanh(W1 x + b1) + b2) + b3), one number a sample.
//
// Parameters lie flat, as nn.Sequential lists them: W1 (H, F), b1 (H), W2 (H, H), b2 (H), w3 (H), b3 (1).
// Letters: B samples, F features, H hidden units, N parameters.
#pragma once

#include <cmath>
#include <cstdint>

#include "daj/device.h"

namespace daj {

// What shared memory holds on a GPU, and more than the paper's net of 1 and 10.
constexpr int kMaxFeatures = 8, kMaxHidden = 64;

// Where the parameters of each layer begin.
struct InstanceNet {
    int F, H;

    DAJ_HD int b1() const { return H * F; }
    DAJ_HD int W2() const { return b1() + H; }
    DAJ_HD int b2() const { return W2() + H * H; }
    DAJ_HD int w3() const { return b2() + H; }
    DAJ_HD int b3() const { return w3() + H; }
    DAJ_HD int size() const { return b3() + 1; }
};

// (x + sqrt(x^2 + 4)) / 2, without cancellation for x < 0.
template <typename Real>
DAJ_HD Real squareplus(Real x) {
    const Real root = std::sqrt(x * x + 4);
    return x < 0 ? 2 / (root - x) : (x + root) / 2;
}

// Its derivative, (1 + x / sqrt(x^2 + 4)) / 2, which would cancel too.
template <typename Real>
DAJ_HD Real squareplus_slope(Real x) {
    return squareplus(x) / std::sqrt(x * x + 4);
}

// tanh's derivative where tanh is y.
template <typename Real>
DAJ_HD Real tanh_slope(Real y) {
    return 1 - y * y;
}

namespace cpu {

// weights[i] = alpha of features[i, :]; gradient[n] = sum over i of derivative[i] * d alpha_i / d parameters[n].
void instance_net_hypergrad(const InstanceNet& net, const float* features, const float* parameters,
                            const float* derivative, float* weights, float* gradient, int64_t B);

}  // namespace cpu

namespace cuda {

// The same on a GPU, in one block. Returns nullptr, or CUDA's text of the error.
const char* instance_net_hypergrad(const InstanceNet& net, const float* features, const float* parameters,
                                   const float* derivative, float* weights, float* gradient, int64_t B, void* stream);

}  // namespace cuda
}  // namespace daj
