// The steps of the vocabulary pass on a host. Plain torch serves CPU users, as fast: this runs the formulas that the
// GPU runs, where a test can see them.
#include "daj/linear_logprob.h"

#include <algorithm>
#include <cstring>

#include "daj/simd.h"

namespace daj::cpu {
namespace {

// To nearest, ties to even.
BFloat16 to_bfloat16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    if (x != x) return {static_cast<uint16_t>((bits >> 16) | 0x40)};
    return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

}  // namespace

void logprob_tile(const Tile& tile) {
    auto* narrowed = static_cast<BFloat16*>(tile.narrowed);
    for (int64_t n = 0; n < tile.N; ++n) {
        RowState row = load_row(tile.state, tile.N, n);
        float* logits = tile.products + n * tile.C;
        float top = -INFINITY;
        for (int64_t c = 0; c < tile.C; ++c) {
            logits[c] = logit_of(logits[c], tile.bias ? tile.bias[c] : 0, tile.logits);
            if (tile.first + c == tile.targets[n]) {
                row.target = logits[c];
                logits[c] = -INFINITY;
            }
            top = std::max(top, logits[c]);
        }
        const float fade = raise_maximum(row, top);
        double l = 0, a = 0;  // of this tile; the GPU's tree of sums needs no double
        for (int64_t c = 0; c < tile.C; ++c) {
            const Term term = term_of(logits[c], row.m);
            l += term.P;
            a += term.weighted;
            const float scaled = term.P == 0 ? 0 : term.P * slope_of(logits[c], tile.logits);
            if (narrowed) {
                narrowed[n * tile.C + c] = to_bfloat16(scaled);
            } else {
                logits[c] = scaled;
            }
        }
        row.l += static_cast<float>(l);
        row.a += static_cast<float>(a);
        if (tile.accumulator && fade != 1) {
            for (int64_t h = 0; h < tile.H; ++h) tile.accumulator[n * tile.H + h] *= fade;
        }
        const float numbers[] = {row.m, row.l, row.a, row.target};
        for (int64_t i = 0; i < 4; ++i) tile.state[i * tile.N + n] = numbers[i];
    }
}

void logprob_finish(const Finish& finish) {
    auto* narrowed = static_cast<BFloat16*>(finish.narrowed);
    for (int64_t n = 0; n < finish.N; ++n) {
        const RowState row = load_row(finish.state, finish.N, n);
        const RowResult result = finish_row(row);
        finish.logp[n] = result.logp;
        finish.lse[n] = result.lse;
        if (finish.entropy) finish.entropy[n] = result.entropy;
        if (!finish.accumulator) continue;
        const float slope = slope_of(row.target, finish.logits);
        const int64_t y = std::clamp<int64_t>(finish.targets[n], 0, finish.V - 1) * finish.H;
        for (int64_t h = 0; h < finish.H; ++h) {
            const float of_target = finish.weight_type == MatrixType::kFloat32
                                        ? static_cast<const float*>(finish.weight)[y + h]
                                        : to_float(static_cast<const BFloat16*>(finish.weight)[y + h]);
            float* o = finish.accumulator + n * finish.H + h;
            const float u = row_gradient(result, slope, of_target, *o, finish.logits);
            if (narrowed) {
                narrowed[n * finish.H + h] = to_bfloat16(u);
            } else {
                *o = u;
            }
        }
    }
}

}  // namespace daj::cpu
