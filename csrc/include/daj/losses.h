// The losses: value and derivative of each formula, for host and device.
//
// daj_lightning/kernels/losses.py is the specification; derivatives are by the judge's log-probabilities.
// What happens once a sample is in double, what happens once a token in float. Log-probabilities are in nats.
#pragma once

#include <cfloat>
#include <cmath>

#include "daj/device.h"

namespace daj {

struct PairLoss {
    double value, by_chosen, by_rejected;
};

struct ResponseLoss {
    double value, by_response;
};

struct TokenLoss {
    float value, by_logp;
};

DAJ_HD double sigmoid(double x) {
    const double e = exp(-fabs(x));
    return (x < 0 ? e : 1.0) / (1.0 + e);
}

// -log sigmoid(x); its derivative is -sigmoid(-x).
DAJ_HD double minus_log_sigmoid(double x) { return log1p(exp(-fabs(x))) + (x < 0 ? -x : 0.0); }

// DPO (Rafailov et al. 2023, Eq. 7) from summed log-probabilities.
DAJ_HD PairLoss dpo_loss(double chosen, double rejected, double reference_chosen, double reference_rejected,
                         double beta) {
    const double margin = beta * ((chosen - reference_chosen) - (rejected - reference_rejected));
    const double slope = -beta * sigmoid(-margin);
    return {minus_log_sigmoid(margin), slope, -slope};
}

// KTO (Ethayarajh et al. 2024, Eq. 7) from summed log-probabilities; `weight` is that of the response's side.
DAJ_HD ResponseLoss kto_loss(double response, double reference, double kl, bool desirable, double beta, double weight) {
    const double side = desirable ? 1.0 : -1.0;
    const double gain = beta * side * (response - reference - kl);
    return {weight * sigmoid(-gain), -weight * beta * side * sigmoid(gain) * sigmoid(-gain)};
}

// log(1 - e^x) for x <= 0. The bound is that of the specification in float32: finite at 0.
DAJ_HD double log1mexp(double x) {
    x = x < -static_cast<double>(FLT_EPSILON) ? x : -static_cast<double>(FLT_EPSILON);
    return x > -0.69314718055994531 ? log(-expm1(x)) : log1p(-exp(x));
}

// Log-odds of a response whose log-probability is x: x - log(1 - e^x), and its derivative.
struct LogOdds {
    double value, by_x;
};

DAJ_HD LogOdds log_odds(double x) {
    return {x - log1mexp(x), x <= -static_cast<double>(FLT_EPSILON) ? -1.0 / expm1(x) : 1.0};
}

// ORPO's odds ratio term (Hong et al. 2024, Eq. 7, times beta) from mean log-probabilities.
DAJ_HD PairLoss odds_ratio_loss(double chosen, double rejected, double beta) {
    const LogOdds good = log_odds(chosen), bad = log_odds(rejected);
    const double slope = -beta * sigmoid(bad.value - good.value);
    return {beta * minus_log_sigmoid(good.value - bad.value), slope * good.by_x, -slope * bad.by_x};
}

// What GRPO's formula is told once for all tokens.
struct PolicyOptions {
    float lowest_ratio, highest_ratio;
    float importance_cap;
    float beta;
    bool unbiased_kl;
};

// The clipped policy term (Shao et al. 2024, Eq. 3), negated, at a ratio of judge to old policy.
DAJ_HD TokenLoss clipped_loss(float ratio, float advantage, const PolicyOptions& options) {
    if (advantage > 0 && ratio > options.highest_ratio) return {-advantage * options.highest_ratio, 0.0f};
    if (advantage < 0 && ratio < options.lowest_ratio) return {-advantage * options.lowest_ratio, 0.0f};
    return {-advantage * ratio, -advantage * ratio};
}

// Truncated importance sampling (Yao et al. 2025): policy of the ratios over the engine that drew the token.
DAJ_HD float importance_weight(float old, float sampled, const PolicyOptions& options) {
    const float weight = expf(old - sampled);
    return weight > options.importance_cap ? options.importance_cap : weight;
}

// The estimate of the divergence from the reference (Shao et al. 2024, Eq. 4), times beta.
DAJ_HD TokenLoss kl_loss(float logp, float reference, float ratio, const PolicyOptions& options) {
    const float towards = reference - logp, growth = expm1f(towards);
    if (options.unbiased_kl) {
        const float scale = options.beta * ratio;
        return {scale * (growth - towards), -scale * towards};
    }
    return {options.beta * (growth - towards), -options.beta * growth};
}

}  // namespace daj
