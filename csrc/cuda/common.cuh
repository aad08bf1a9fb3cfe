// What the kernels share: sums over a warp, and what became of a launch.
#pragma once

#include <cuda_runtime.h>

namespace daj::cuda {

// The sum over a warp's threads, in every thread; always in the same order.
template <typename T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

// Of the launch just made: nullptr, or CUDA's text of the error.
inline const char* launch_error() {
    const cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace daj::cuda
