// The CUDA side of the vocabulary pass's steps.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include "launch.h"
#include "linear_logprob_checks.h"

namespace daj {
namespace {

void logprob_tile_cuda(Tensor products, MaybeTensor narrowed, Tensor state, MaybeTensor accumulator, Tensor targets,
                       MaybeTensor bias, int64_t first, double scale, double softcap, double temperature) {
    const Tile tile =
        check_tile(products, narrowed, state, accumulator, targets, bias, first, scale, softcap, temperature);
    const torch::stable::accelerator::DeviceGuard guard(products.get_device_index());
    check_launch("logprob_tile", cuda::logprob_tile(tile, current_stream(products)));
}

void logprob_finish_cuda(Tensor state, MaybeTensor accumulator, Tensor weight, Tensor targets, double scale,
                         double softcap, double temperature, Tensor logp, Tensor lse, MaybeTensor entropy,
                         MaybeTensor narrowed) {
    const Finish finish = check_finish(state, accumulator, weight, targets, scale, softcap, temperature, logp, lse,
                                       entropy, narrowed);
    const torch::stable::accelerator::DeviceGuard guard(state.get_device_index());
    check_launch("logprob_finish", cuda::logprob_finish(finish, current_stream(state)));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(daj, CUDA, library) {
    library.impl("logprob_tile", TORCH_BOX(&logprob_tile_cuda));
    library.impl("logprob_finish", TORCH_BOX(&logprob_finish_cuda));
}

}  // namespace daj
