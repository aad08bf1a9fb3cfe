// Selected-token log-probabilities: the steps between the matrix products of daj_lightning/kernels/vocabulary_pass.py,
// which says the algorithm. The formulas of one row stand here once, for the host and the device.
// Letters: N rows, C columns of a tile, H hidden size, V vocabulary; m, l, a, z_y a row's state; o its accumulator.
#pragma once

#include <cmath>
#include <cstdint>

#include "daj/device.h"

namespace daj {

enum class MatrixType { kFloat32, kBFloat16 };

// Columns of a tile at most: the GPU holds a row of it in registers.
constexpr int64_t kMostColumns = 8192;

// How products x become logits z = cap(scale * (x + bias)) / temperature.
struct Logits {
    float scale;
    float softcap;  // cap(x) = softcap * tanh(x / softcap); 0: no cap
    float temperature;
};

DAJ_HD float logit_of(float product, float bias, Logits logits) {
    const float x = logits.scale * (product + bias);
    return (logits.softcap > 0 ? logits.softcap * tanhf(x / logits.softcap) : x) / logits.temperature;
}

// s, the slope of the cap at a logit.
DAJ_HD float slope_of(float logit, Logits logits) {
    if (!(logits.softcap > 0)) return 1;
    const float t = logit * logits.temperature / logits.softcap;
    return 1 - t * t;
}

// What a row knows after some tiles. The target is left out of m, l and a.
struct RowState {
    float m;         // what exponents are relative to; kNone before the first logit
    float l;         // sum of P = exp(z - m)
    float a;         // sum of P (z - m)
    float target;    // z_y
};

constexpr float kNone = -1e30f;   // finite, so that no difference of it is NaN
constexpr float kMargin = 20.0f;  // a tile that tops m by more raises it

// Raise m for a tile whose greatest logit is `top`. Returns what the accumulator fades by.
DAJ_HD float raise_maximum(RowState& row, float top) {
    if (!(top > row.m + kMargin)) return 1;
    const float fade = expf(row.m - top);
    row.a = fade * (row.a + row.l * (row.m - top));
    row.l *= fade;
    row.m = top;
    return fade;
}

// P of one logit; 0 for one that is left out as -infinity. Its share of a, P (z - m), is then 0 and not NaN.
struct Term {
    float P, weighted;
};
DAJ_HD Term term_of(float logit, float m) {
    const float shift = logit - m, P = expf(shift);
    return {P, P == 0 ? 0 : P * shift};
}

struct RowResult {
    float logp, lse, entropy;
    float others;        // 1 - p_y
    float per_others;    // 1 / l, or 0 without others
};

DAJ_HD float log_sum_exp(float x, float y) {
    if (x != x || y != y) return x + y;  // fmaxf and fminf would drop a NaN
    const float top = fmaxf(x, y);
    return top + log1pf(expf(fminf(x, y) - top));
}

DAJ_HD RowResult finish_row(RowState row) {
    RowResult result;
    if (row.l == 0) {  // no other token: the target has it all
        result = {0, row.target, 0, 0, 0};
        if (row.target != row.target) result.logp = row.target;  // NaN: the target was not in the vocabulary
        return result;
    }
    const float log_l = logf(row.l);
    const float gap = (row.m - row.target) + log_l;  // the log-odds against the target
    result.logp = -log_sum_exp(gap, 0);
    result.lse = log_sum_exp(row.m + log_l, row.target);
    // 1 / (1 + exp(-gap)), by the exponential that cannot overflow.
    const float e = expf(-fabsf(gap));
    result.others = (gap > 0 ? 1 : e) / (1 + e);
    result.per_others = 1 / row.l;
    // -log p_v is lse - z_v: the target's share, and the mean over the others.
    const float surprise = log_sum_exp(log_l, row.target - row.m) - row.a / row.l;
    result.entropy = result.others * surprise - expf(result.logp) * result.logp;
    return result;
}

// u, the derivative of logp, at one hidden coordinate: `of_target` is W_y there, `accumulated` is o.
DAJ_HD float row_gradient(RowResult row, float slope, float of_target, float accumulated, Logits logits) {
    return logits.scale / logits.temperature * row.others * (slope * of_target - accumulated * row.per_others);
}

// A tile of products and what it is folded into; null where absent.
struct Tile {
    float* products;          // (N, C); becomes P s where `narrowed` is null and there is an accumulator
    void* narrowed;           // (N, C) bfloat16: P s
    float* state;             // (4, N): m, l, a, target
    float* accumulator;       // (N, H), faded
    const int64_t* targets;   // (N)
    const float* bias;        // (C)
    int64_t N, C, H;
    int64_t first;            // the tile's first column in the vocabulary
    Logits logits;
};

// The end of a block of rows.
struct Finish {
    const float* state;      // (4, N)
    float* accumulator;      // (N, H); becomes u where `narrowed` is null
    const void* weight;      // (V, H)
    MatrixType weight_type;
    const int64_t* targets;  // (N)
    float* logp;             // (N)
    float* lse;              // (N)
    float* entropy;          // (N), or null
    void* narrowed;          // (N, H) bfloat16: u
    int64_t N, H, V;
    Logits logits;
};

DAJ_HD RowState load_row(const float* state, int64_t N, int64_t n) {
    return {state[n], state[N + n], state[2 * N + n], state[3 * N + n]};
}

namespace cpu {

void logprob_tile(const Tile& tile);
void logprob_finish(const Finish& finish);

}  // namespace cpu

namespace cuda {

// Each returns nullptr, or CUDA's text of the error.
const char* logprob_tile(const Tile& tile, void* stream);
const char* logprob_finish(const Finish& finish, void* stream);

}  // namespace cuda
}  // namespace daj
