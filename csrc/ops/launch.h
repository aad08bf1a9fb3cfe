// Where a CUDA kernel is started, and what to say if it was not.
#pragma once

#include "checks.h"

// Lives in libtorch_cuda, which a CPU torch lacks. Weak: there the library still loads, and nothing
// calls it. (Streams show their handle in the stable ABI itself from torch 2.13 on only.)
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);

namespace daj {

inline void* current_stream(const Tensor& tensor) {
    STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr,
                    "the extension was built against a torch without CUDA, and this torch has it. Build it again: "
                    "pip install -e .");
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
    return stream;
}

inline void check_launch(const char* op, const char* error) {
    STD_TORCH_CHECK(error == nullptr, op, " could not start its CUDA kernel: ", error);
}

}  // namespace daj
