// Matrix products of bfloat16 numbers with float32 sums and a float32 result, on CPUs that have an instruction for it.
// torch's own round the result to bfloat16, which costs a log-probability two digits. Numbers below 1.2e-38 count as 0.
// Letters: R rows of the left matrix, C columns of the result, K the length of the sums.
#pragma once

#include <cstdint>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 11
#define DAJ_HAS_BFLOAT16_MM 1
#else
#define DAJ_HAS_BFLOAT16_MM 0
#endif

namespace daj {

// Whether this machine's CPU has it.
inline bool has_bfloat16_mm() {
#if DAJ_HAS_BFLOAT16_MM
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512dq");
#else
    return false;
#endif
}

struct Bfloat16Product {
    const uint16_t* left;   // (R, K)
    const uint16_t* right;  // (K, C), or (C, K) if transposed
    float* out;             // (R, C)
    int64_t R, C, K;
    bool transposed;
    bool add;  // to what is in out
};

namespace cpu {

constexpr int64_t kPanelColumns = 32;

inline int64_t num_panels(int64_t C) { return (C + kPanelColumns - 1) / kPanelColumns; }

// Columns of the result from panel `first` up to `last`; only where has_bfloat16_mm().
void bfloat16_mm(const Bfloat16Product& product, int64_t first_panel, int64_t last_panel);

}  // namespace cpu
}  // namespace daj
