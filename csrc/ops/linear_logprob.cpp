// The steps of the vocabulary pass as operators, and their CPU side.
#include <torch/csrc/stable/ops.h>

#include "linear_logprob_checks.h"

namespace daj {
namespace {

void logprob_tile_cpu(Tensor products, MaybeTensor narrowed, Tensor state, MaybeTensor accumulator, Tensor targets,
                      MaybeTensor bias, int64_t first, double scale, double softcap, double temperature) {
    cpu::logprob_tile(check_tile(products, narrowed, state, accumulator, targets, bias, first, scale, softcap,
                                 temperature));
}

void logprob_finish_cpu(Tensor state, MaybeTensor accumulator, Tensor weight, Tensor targets, double scale,
                        double softcap, double temperature, Tensor logp, Tensor lse, MaybeTensor entropy,
                        MaybeTensor narrowed) {
    cpu::logprob_finish(check_finish(state, accumulator, weight, targets, scale, softcap, temperature, logp, lse,
                                     entropy, narrowed));
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(daj, library) {
    library.def(
        "logprob_tile(Tensor(a!) products, Tensor(b!)? narrowed, Tensor(c!) state, Tensor(d!)? accumulator, "
        "Tensor targets, Tensor? bias, int first, float scale, float softcap, float temperature) -> ()");
    library.def(
        "logprob_finish(Tensor state, Tensor(a!)? accumulator, Tensor weight, Tensor targets, float scale, "
        "float softcap, float temperature, Tensor(b!) logp, Tensor(c!) lse, Tensor(d!)? entropy, "
        "Tensor(e!)? narrowed) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(daj, CPU, library) {
    library.impl("logprob_tile", TORCH_BOX(&logprob_tile_cpu));
    library.impl("logprob_finish", TORCH_BOX(&logprob_finish_cpu));
}

}  // namespace daj
