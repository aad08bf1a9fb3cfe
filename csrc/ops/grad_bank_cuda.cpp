// The CUDA side of the bank operators. csrc/ops needs no CUDA header, and no CUDA torch to compile.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include "grad_bank_checks.h"
#include "launch.h"

namespace daj {
namespace {

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

Tensor grad_bank_dot_adam_cuda(Tensor bank, Tensor vector, Tensor gradient, Tensor m0, Tensor v0, double lr,
                               double beta1, double beta2, double eps, int64_t step) {
    const BankType type = check_bank(bank);
    const int64_t K = bank.size(0), P = bank.size(1);
    const AdamVector y = check_adam(bank, vector, gradient, m0, v0, lr, beta1, beta2, eps, step);
    const torch::stable::accelerator::DeviceGuard guard(bank.get_device_index());
    Tensor scratch = torch::stable::new_empty(vector, {cuda::grad_bank_dot_scratch(K + 1, P)});
    Tensor out = torch::stable::new_empty(vector, {K + 1});
    check_launch("grad_bank_dot_adam",
                 cuda::grad_bank_dot_adam(bank.const_data_ptr(), type, y, scratch.mutable_data_ptr<float>(),
                                          out.mutable_data_ptr<float>(), K, P, current_stream(bank)));
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
    library.impl("grad_bank_dot_adam", TORCH_BOX(&grad_bank_dot_adam_cuda));
    library.impl("grad_bank_combine", TORCH_BOX(&grad_bank_combine_cuda));
}

}  // namespace daj
