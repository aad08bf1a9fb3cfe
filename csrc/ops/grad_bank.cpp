// The bank operators and their CPU side. Python sees them as torch.ops.daj.*.
//
// csrc/ops is built against torch's stable ABI: one binary serves every torch from 2.11 on.
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "grad_bank_checks.h"

namespace daj {
namespace {

// Blocks that are worth waking a thread for: 32 blocks of 16 bfloat16 rows are 4 MiB.
constexpr int64_t kBlocksPerTask = 32;

// Totals of `rows` rows of partial sums, in order; a float32 tensor like `like`.
Tensor sum_blocks(const std::vector<double>& partials, int64_t rows, int64_t num_blocks, const Tensor& like) {
    Tensor out = torch::stable::new_empty(like, {rows});
    for (int64_t k = 0; k < rows; ++k) {
        const double* row = partials.data() + k * num_blocks;
        out.mutable_data_ptr<float>()[k] = static_cast<float>(std::accumulate(row, row + num_blocks, 0.0));
    }
    return out;
}

Tensor grad_bank_dot_cpu(Tensor bank, Tensor vector) {
    const BankType type = check_bank(bank);
    const int64_t K = bank.size(0), P = bank.size(1), num_blocks = cpu::num_blocks(P);
    check_operand("vector", vector, P, bank);
    std::vector<double> partials(K * num_blocks);
    torch::stable::parallel_for(0, num_blocks, kBlocksPerTask, [&](int64_t first, int64_t last) {
        cpu::grad_bank_dot(bank.const_data_ptr(), type, vector.const_data_ptr<float>(), partials.data(), K, P, first,
                           last);
    });
    return sum_blocks(partials, K, num_blocks, vector);
}

Tensor grad_bank_dot_adam_cpu(Tensor bank, Tensor vector, Tensor gradient, Tensor m0, Tensor v0, double lr,
                              double beta1, double beta2, double eps, int64_t step) {
    const BankType type = check_bank(bank);
    const int64_t K = bank.size(0), P = bank.size(1), num_blocks = cpu::num_blocks(P);
    const AdamVector y = check_adam(bank, vector, gradient, m0, v0, lr, beta1, beta2, eps, step);
    std::vector<double> partials((K + 1) * num_blocks);
    torch::stable::parallel_for(0, num_blocks, kBlocksPerTask, [&](int64_t first, int64_t last) {
        cpu::grad_bank_dot_adam(bank.const_data_ptr(), type, y, partials.data(), K, P, first, last);
    });
    return sum_blocks(partials, K + 1, num_blocks, vector);
}

Tensor grad_bank_combine_cpu(Tensor bank, Tensor weights) {
    const BankType type = check_bank(bank);
    const int64_t K = bank.size(0), P = bank.size(1);
    check_operand("weights", weights, K, bank);
    Tensor out = torch::stable::new_empty(weights, {P});
    torch::stable::parallel_for(0, cpu::num_blocks(P), kBlocksPerTask, [&](int64_t first, int64_t last) {
        cpu::grad_bank_combine(bank.const_data_ptr(), type, weights.const_data_ptr<float>(),
                               out.mutable_data_ptr<float>(), K, P, first, last);
    });
    return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(daj, library) {
    library.def("grad_bank_dot(Tensor bank, Tensor vector) -> Tensor");
    library.def(
        "grad_bank_dot_adam(Tensor bank, Tensor vector, Tensor gradient, Tensor m0, Tensor v0, float lr, float beta1, "
        "float beta2, float eps, int step) -> Tensor");
    library.def("grad_bank_combine(Tensor bank, Tensor weights) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(daj, CPU, library) {
    library.impl("grad_bank_dot", TORCH_BOX(&grad_bank_dot_cpu));
    library.impl("grad_bank_dot_adam", TORCH_BOX(&grad_bank_dot_adam_cpu));
    library.impl("grad_bank_combine", TORCH_BOX(&grad_bank_combine_cpu));
}

}  // namespace daj
