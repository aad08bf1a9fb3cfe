// The weighting net on a CPU: one sample after another, in double. It is some hundred numbers, so that calling it
// costs more than computing it.
#include "daj/instance_net.h"

#include <algorithm>
#include <vector>

namespace daj::cpu {

void instance_net_hypergrad(const InstanceNet& net, const float* features, const float* parameters,
                            const float* derivative, float* weights, float* gradient, int64_t B) {
    const int F = net.F, H = net.H, N = net.size();
    const float *W1 = parameters, *b1 = parameters + net.b1(), *W2 = parameters + net.W2(), *b2 = parameters + net.b2(),
                *w3 = parameters + net.w3(), *b3 = parameters + net.b3();
    std::vector<double> total(N), first(H), second(H), of_first(H), of_second(H);
    for (int64_t i = 0; i < B; ++i) {
        const float* x = features + i * F;
        for (int j = 0; j < H; ++j) {
            double sum = b1[j];
            for (int f = 0; f < F; ++f) sum += static_cast<double>(W1[j * F + f]) * x[f];
            first[j] = std::tanh(sum);
        }
        double raw = b3[0];
        for (int j = 0; j < H; ++j) {
            double sum = b2[j];
            for (int l = 0; l < H; ++l) sum += W2[j * H + l] * first[l];
            second[j] = std::tanh(sum);
            raw += w3[j] * second[j];
        }
        weights[i] = static_cast<float>(squareplus(raw));

        const double of_raw = derivative[i] * squareplus_slope(raw);
        std::fill(of_first.begin(), of_first.end(), 0.0);
        for (int j = 0; j < H; ++j) {
            of_second[j] = of_raw * w3[j] * tanh_slope(second[j]);
            for (int l = 0; l < H; ++l) {
                of_first[l] += of_second[j] * W2[j * H + l];
                total[net.W2() + j * H + l] += of_second[j] * first[l];
            }
            total[net.b2() + j] += of_second[j];
            total[net.w3() + j] += of_raw * second[j];
        }
        for (int l = 0; l < H; ++l) {
            of_first[l] *= tanh_slope(first[l]);
            for (int f = 0; f < F; ++f) total[l * F + f] += of_first[l] * x[f];
            total[net.b1() + l] += of_first[l];
        }
        total[net.b3()] += of_raw;
    }
    std::copy(total.begin(), total.end(), gradient);
}

}  // namespace daj::cpu
