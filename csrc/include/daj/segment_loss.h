// Losses of samples from the log-probabilities of their tokens, and what each token contributes to them.
//
// logp holds the scored tokens of R rows, row after row: row r's are offsets[r] <= t < offsets[r + 1]. The rows of
// a sample stand together. Every launcher writes, for each sample, its weight times its loss, and for each token
// the derivative of that by the token's log-probability.
// Letters: B samples, R rows, N tokens.
#pragma once

#include <cstdint>

#include "daj/losses.h"

namespace daj {

// The numbers are those of daj_lightning/kernels/segments.py.
enum class Preference { kDpo = 0, kKto = 1, kOrpo = 2, kSft = 3 };

DAJ_HD int rows_per_sample(Preference kind) { return kind == Preference::kDpo || kind == Preference::kOrpo ? 2 : 1; }

struct PreferenceArguments {
    Preference kind;
    const float* logp;       // (N,)
    const int64_t* offsets;  // (R + 1,)
    const float* reference;  // (R,), of kDpo and kKto
    const float* kl;         // (B,), of kKto
    const bool* desirable;   // (B,), of kKto
    const bool* counted;     // (N,), of kOrpo: tokens of the response; nullptr: all
    const float* weights;    // (B,); nullptr: ones
    double beta, nll_weight, desirable_weight, undesirable_weight;
    float* loss;         // (B,)
    float* coefficient;  // (N,)
};

struct PolicyArguments {
    const float* logp;        // (N,)
    const int64_t* offsets;   // (R + 1,)
    const float* advantages;  // (R,)
    const int64_t* divisors;  // (R,)
    const float* old;         // (N,); nullptr: logp itself
    const float* sampled;     // (N,); nullptr: no importance weights
    const float* reference;   // (N,); nullptr: no divergence
    const float* weights;     // (B,); nullptr: ones
    int64_t rows_per_sample;
    PolicyOptions options;
    float* loss;         // (B,)
    float* coefficient;  // (N,)
};

// Log-probability of a row: of all its tokens, and of those that count.
struct RowSum {
    double all = 0, counted = 0;
    int64_t num_all = 0, num_counted = 0;
};

// Derivative by each token's log-probability, of those that count and of the others.
struct RowSlope {
    double counted, other;
};

struct SampleLoss {
    double value;
    RowSlope first, second;
};

// An empty row has the mean 0.
DAJ_HD double mean(double sum, int64_t count) { return count > 0 ? sum / static_cast<double>(count) : 0.0; }

// The loss of sample b from the sums of its rows; `second` is empty where a sample is one row.
DAJ_HD SampleLoss sample_loss(const PreferenceArguments& given, int64_t b, const RowSum& first, const RowSum& second) {
    const double nll = -mean(first.all, first.num_all), nll_slope = -mean(1, first.num_all);
    if (given.kind == Preference::kDpo) {
        const float* reference = given.reference + 2 * b;
        const PairLoss loss = dpo_loss(first.all, second.all, reference[0], reference[1], given.beta);
        const double chosen = loss.by_chosen + given.nll_weight * nll_slope;
        return {loss.value + given.nll_weight * nll, {chosen, chosen}, {loss.by_rejected, loss.by_rejected}};
    }
    if (given.kind == Preference::kKto) {
        const bool desirable = given.desirable[b];
        const double weight = desirable ? given.desirable_weight : given.undesirable_weight;
        const ResponseLoss loss = kto_loss(first.all, given.reference[b], given.kl[b], desirable, given.beta, weight);
        return {loss.value, {loss.by_response, loss.by_response}, {0, 0}};
    }
    if (given.kind == Preference::kOrpo) {
        const PairLoss loss = odds_ratio_loss(mean(first.counted, first.num_counted),
                                              mean(second.counted, second.num_counted), given.beta);
        return {nll + loss.value,
                {nll_slope + mean(loss.by_chosen, first.num_counted), nll_slope},
                {mean(loss.by_rejected, second.num_counted), 0}};
    }
    return {nll, {nll_slope, nll_slope}, {0, 0}};
}

// Loss and derivative of token t, undivided and unweighted.
DAJ_HD TokenLoss token_loss(const PolicyArguments& given, int64_t t, float advantage) {
    const float logp = given.logp[t], old = given.old ? given.old[t] : logp;
    const float ratio = expf(logp - old);
    TokenLoss loss = clipped_loss(ratio, advantage, given.options);
    if (given.sampled) {
        const float weight = importance_weight(old, given.sampled[t], given.options);
        loss = {weight * loss.value, weight * loss.by_logp};
    }
    if (given.reference) {
        const TokenLoss kl = kl_loss(logp, given.reference[t], ratio, given.options);
        loss = {loss.value + kl.value, loss.by_logp + kl.by_logp};
    }
    return loss;
}

namespace cpu {

// Of the samples first <= b < last.
void segment_preference_loss(const PreferenceArguments& given, int64_t first, int64_t last);
void segment_policy_loss(const PolicyArguments& given, int64_t first, int64_t last);

}  // namespace cpu

namespace cuda {

// One launch, a block for each of B samples. Return nullptr, or CUDA's text of the error.
const char* segment_preference_loss(const PreferenceArguments& given, int64_t B, void* stream);
const char* segment_policy_loss(const PolicyArguments& given, int64_t B, void* stream);

}  // namespace cuda
}  // namespace daj
