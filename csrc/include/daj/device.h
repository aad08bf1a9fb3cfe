// Formulas that the host and the device share: one text, compiled by both compilers.
#pragma once

#if defined(__CUDACC__)
#define DAJ_HD __host__ __device__ __forceinline__
#else
#define DAJ_HD inline __attribute__((always_inline))
#endif
