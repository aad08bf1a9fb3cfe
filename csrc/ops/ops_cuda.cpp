// The CUDA side of the daj:: operators. Needs no CUDA header, and no CUDA torch to compile.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include "checks.h"

// Lives in libtorch_cuda, which a CPU torch lacks. Weak: there the library still loads, and nothing
// calls it. (Streams show their handle in the stable ABI itself from torch 2.13 on only.)
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);

namespace daj {
namespace {

void* current_stream(const Tensor& tensor) {
    STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr,
                    "the extension was built against a torch without CUDA, and this torch has it. Build it again: "
                    "pip install -e .");
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
    return stream;
}

void check_launch(const char* op, const char* error) {
    STD_TORCH_CHECK(error == nullptr, op, " could not start its CUDA kernel: ", error);
}

Tensor grad_bank_dot_cuda(Tensor bank, Tensor vector) {
    const BankType type = check_bank(bank);
    const int64_t K = bank.size(0), P = bank.size(1);
    check_operand("vector", vector, P, bank);
    const torch::stable::accelerator::DeviceGuard guard(bank.get_device_index());
    Tensor scratch = torch::stable::new_empty(vector, {cuda::grad_bank_dot_scratch(K, P)});
    Tensor out = torch::stable::new_empty(vector, {K});
    check_launch("grad_bank_dot",
                 cuda::grad_bank_dot(bank.const_data_ptr(), type, vector.const_data_ptr<float>(),
                                     scratch.mutable_data_ptr<float>(), out.mutable_data_ptr<float>(), K, P,
                                     current_stream(bank)));
    return out;
}

Tensor grad_bank_combine_cuda(Tensor bank, Tensor weights) {
    const BankType type = check_bank(bank);
    const int64_t K = bank.size(0), P = bank.size(1);
    check_operand("weights", weights, K, bank);
    const torch::stable::accelerator::DeviceGuard guard(bank.get_device_index());
    Tensor out = torch::stable::new_empty(weights, {P});
    check_launch("grad_bank_combine",
                 cuda::grad_bank_combine(bank.const_data_ptr(), type, weights.const_data_ptr<float>(),
                                         out.mutable_data_ptr<float>(), K, P, current_stream(bank)));
    return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(daj, CUDA, library) {
    library.impl("grad_bank_dot", TORCH_BOX(&grad_bank_dot_cuda));
    library.impl("grad_bank_combine", TORCH_BOX(&grad_bank_combine_cuda));
}

}  // namespace daj
