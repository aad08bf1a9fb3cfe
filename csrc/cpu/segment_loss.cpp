// Losses of samples on a CPU, one sample after another; sums are in double.
#include "daj/segment_loss.h"

namespace daj::cpu {
namespace {

RowSum row_sum(const PreferenceArguments& given, int64_t row) {
    RowSum sum;
    for (int64_t t = given.offsets[row]; t < given.offsets[row + 1]; ++t) {
        const bool counts = !given.counted || given.counted[t];
        sum.all += given.logp[t];
        sum.counted += counts ? given.logp[t] : 0.0f;
        sum.num_all += 1;
        sum.num_counted += counts;
    }
    return sum;
}

void write_row(const PreferenceArguments& given, int64_t row, const RowSlope& slope, double weight) {
    const float counted = static_cast<float>(weight * slope.counted), other = static_cast<float>(weight * slope.other);
    for (int64_t t = given.offsets[row]; t < given.offsets[row + 1]; ++t) {
        given.coefficient[t] = !given.counted || given.counted[t] ? counted : other;
    }
}

}  // namespace

void segment_preference_loss(const PreferenceArguments& given, int64_t first, int64_t last) {
    const int n = rows_per_sample(given.kind);
    for (int64_t b = first; b < last; ++b) {
        const RowSum second_row = n == 2 ? row_sum(given, n * b + 1) : RowSum{};
        const SampleLoss loss = sample_loss(given, b, row_sum(given, n * b), second_row);
        const double weight = given.weights ? given.weights[b] : 1.0;
        given.loss[b] = static_cast<float>(weight * loss.value);
        write_row(given, n * b, loss.first, weight);
        if (n == 2) write_row(given, n * b + 1, loss.second, weight);
    }
}

void segment_policy_loss(const PolicyArguments& given, int64_t first, int64_t last) {
    const int64_t n = given.rows_per_sample;
    for (int64_t b = first; b < last; ++b) {
        const double weight = given.weights ? given.weights[b] : 1.0;
        double total = 0;
        for (int64_t row = n * b; row < n * (b + 1); ++row) {
            const double divisor = static_cast<double>(given.divisors[row]);
            double row_total = 0;
            for (int64_t t = given.offsets[row]; t < given.offsets[row + 1]; ++t) {
                const TokenLoss loss = token_loss(given, t, given.advantages[row]);
                row_total += loss.value;
                given.coefficient[t] = static_cast<float>(weight / divisor * loss.by_logp);
            }
            total += row_total / divisor;
        }
        given.loss[b] = static_cast<float>(weight * total);
    }
}

}  // namespace daj::cpu
