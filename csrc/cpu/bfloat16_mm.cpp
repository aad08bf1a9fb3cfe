// bfloat16 products by AVX512-BF16, whose instruction adds sixteen sums of two products each.
//
// A panel of 32 columns of the right matrix is laid out so that the pairs k, k + 1 of all its columns stand together; it
// stays in the second-level cache while blocks of twelve rows pass. 24 sums of sixteen, two registers of the panel and
// one of a broadcast pair fill the 32 registers. Every element of the result is one sum in the order of k, whatever R
// and C are: no bit depends on how a matrix was cut into tiles.
#include "daj/bfloat16_mm.h"

#if DAJ_HAS_BFLOAT16_MM

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "daj/simd.h"

#define DAJ_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

namespace daj::cpu {
namespace {

constexpr int kRows = 12, kLanes16 = 16;
constexpr int64_t kPairs = 1024;  // of a panel at a time: 128 KiB

DAJ_INLINE uint32_t pair_at(const uint16_t* from) {
    uint32_t pair;
    std::memcpy(&pair, from, sizeof pair);
    return pair;
}

// The pairs of `columns` columns, K numbers each, that are contiguous; panel[p][c], 0 beyond the last.
DAJ_AVX512_BF16 void pack_transposed(const uint16_t* right, int64_t K, int64_t stride, int columns, uint32_t* panel) {
    const int64_t whole = K / 2;
    const bool gathers = columns == kPanelColumns && stride % 2 == 0 && stride < (1 << 26);
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i offsets = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(static_cast<int>(stride / 2)));
    for (int64_t p = 0; p < whole; ++p) {
        uint32_t* to = panel + p * kPanelColumns;
        if (gathers) {
            for (int half = 0; half < 2; ++half) {
                const uint16_t* from = right + half * kLanes16 * stride + 2 * p;
                const __m512i pairs = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), 0xffff, offsets, from, 4);
                _mm512_storeu_si512(to + half * kLanes16, pairs);
            }
            continue;
        }
        for (int c = 0; c < kPanelColumns; ++c) to[c] = c < columns ? pair_at(right + c * stride + 2 * p) : 0;
    }
    if (K % 2) {
        uint32_t* to = panel + whole * kPanelColumns;
        for (int c = 0; c < kPanelColumns; ++c) to[c] = c < columns ? right[c * stride + K - 1] : 0;
    }
}

// The same of columns that are strided: K rows, contiguous along the columns.
DAJ_AVX512_BF16 void pack(const uint16_t* right, int64_t K, int64_t stride, int columns, uint32_t* panel) {
    for (int64_t k = 0; k < K; k += 2) {
        const uint16_t *first = right + k * stride, *second = first + stride;
        uint32_t* to = panel + k / 2 * kPanelColumns;
        for (int c = 0; c < kPanelColumns; ++c) {
            const uint32_t upper = k + 1 < K && c < columns ? second[c] : 0;
            to[c] = (c < columns ? first[c] : 0) | upper << 16;
        }
    }
}

// sums += the pairs at `offset` of each row times one pair of every column.
DAJ_AVX512_BF16 DAJ_INLINE void add_pairs(__m512 (&sums)[kRows][2], const uint16_t* const (&row)[kRows], int64_t offset,
                                          const uint32_t* columns) {
    const __m512bh near = (__m512bh)_mm512_loadu_si512(columns);
    const __m512bh far = (__m512bh)_mm512_loadu_si512(columns + kLanes16);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
        const __m512bh pair = (__m512bh)_mm512_set1_epi32(static_cast<int>(pair_at(row[r] + offset)));
        sums[r][0] = _mm512_dpbf16_ps(sums[r][0], pair, near);
        sums[r][1] = _mm512_dpbf16_ps(sums[r][1], pair, far);
    }
}

// A block of `rows` rows times a panel, K numbers long. Rows beyond the last are the last again, and are not kept.
DAJ_AVX512_BF16 void block(const uint16_t* left, int64_t stride, int rows, const uint32_t* panel, int64_t K, float* out,
                           int64_t out_stride, int columns, bool add) {
    __m512 sums[kRows][2];
    const uint16_t* row[kRows];
    for (int r = 0; r < kRows; ++r) {
        row[r] = left + std::min(r, rows - 1) * stride;
        sums[r][0] = sums[r][1] = _mm512_setzero_ps();
    }
    for (int64_t p = 0; p < K / 2; ++p) add_pairs(sums, row, 2 * p, panel + p * kPanelColumns);
    if (K % 2) {
        uint16_t last[kRows][2] = {};  // with 0 beside it
        const uint16_t* lasts[kRows];
        for (int r = 0; r < kRows; ++r) {
            last[r][0] = row[r][K - 1];
            lasts[r] = last[r];
        }
        add_pairs(sums, lasts, 0, panel + K / 2 * kPanelColumns);
    }
    const uint32_t kept = columns < kPanelColumns ? (1u << columns) - 1 : ~0u;
    for (int r = 0; r < rows; ++r) {
        for (int half = 0; half < 2; ++half) {
            const __mmask16 mask = static_cast<__mmask16>(kept >> (half * kLanes16));
            float* to = out + r * out_stride + half * kLanes16;
            __m512 total = sums[r][half];
            if (add) total = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), total);
            _mm512_mask_storeu_ps(to, mask, total);
        }
    }
}

}  // namespace

void bfloat16_mm(const Bfloat16Product& of, int64_t first_panel, int64_t last_panel) {
    std::vector<uint32_t> panel(std::min((of.K + 1) / 2, kPairs) * kPanelColumns);
    for (int64_t c = first_panel * kPanelColumns; c < std::min(last_panel * kPanelColumns, of.C); c += kPanelColumns) {
        const int columns = static_cast<int>(std::min(kPanelColumns, of.C - c));
        for (int64_t k = 0; k < std::max<int64_t>(of.K, 1); k += 2 * kPairs) {
            const int64_t length = std::min(of.K - k, 2 * kPairs);
            if (of.transposed) {
                pack_transposed(of.right + c * of.K + k, length, of.K, columns, panel.data());
            } else {
                pack(of.right + k * of.C + c, length, of.C, columns, panel.data());
            }
            for (int64_t r = 0; r < of.R; r += kRows) {
                const int rows = static_cast<int>(std::min<int64_t>(kRows, of.R - r));
                block(of.left + r * of.K + k, of.K, rows, panel.data(), length, of.out + r * of.C + c, of.C, columns,
                      of.add || k > 0);
            }
        }
    }
}

}  // namespace daj::cpu

#else

namespace daj::cpu {

void bfloat16_mm(const Bfloat16Product&, int64_t, int64_t) {}  // never called: has_bfloat16_mm() is false

}  // namespace daj::cpu

#endif
