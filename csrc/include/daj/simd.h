// Eight floats at a time, in the vector extension that GCC and clang share.
//
// A compiler lowers `Floats` to what its target has: one register from AVX2 on, two of SSE or NEON. Not sixteen for
// AVX-512's sake: GCC keeps vectors wider than a register in memory, which took twice the time on AVX2, and every op
// here waits for memory anyway. DAJ_SIMD_CLONES compiles a function once per x86-64 level and picks one when the
// library loads, so that a binary runs anywhere and no flag asks for the machine it was built on.
#pragma once

#include <cstdint>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define DAJ_SIMD_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define DAJ_SIMD_CLONES
#endif

// GCC compiles a helper once, for the baseline, unless it is inlined into each clone.
#define DAJ_INLINE inline __attribute__((always_inline))

namespace daj {

constexpr int kLanes = 8;
typedef float Floats __attribute__((vector_size(32)));
typedef uint32_t Words __attribute__((vector_size(32)));
typedef uint16_t Halves __attribute__((vector_size(16)));

struct BFloat16 {
    uint16_t bits;
};

DAJ_INLINE float to_float(float x) { return x; }

// A bfloat16 is the upper half of a float.
DAJ_INLINE float to_float(BFloat16 x) {
    const uint32_t word = static_cast<uint32_t>(x.bits) << 16;
    float result;
    __builtin_memcpy(&result, &word, sizeof result);
    return result;
}

DAJ_INLINE Floats load(const float* from) {
    Floats result;
    __builtin_memcpy(&result, from, sizeof result);
    return result;
}

DAJ_INLINE Floats load(const BFloat16* from) {
    Halves halves;
    __builtin_memcpy(&halves, from, sizeof halves);
    const Words words = __builtin_convertvector(halves, Words) << 16;
    Floats result;
    __builtin_memcpy(&result, &words, sizeof result);
    return result;
}

DAJ_INLINE void store(float* to, Floats values) { __builtin_memcpy(to, &values, sizeof values); }

DAJ_INLINE Floats broadcast(float x) { return x - Floats{}; }

DAJ_INLINE double sum(Floats values) {
    double result = 0;
    for (int lane = 0; lane < kLanes; ++lane) result += values[lane];
    return result;
}

}  // namespace daj
