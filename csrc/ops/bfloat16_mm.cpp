// bfloat16 matrix products on a CPU as an operator.
#include <torch/csrc/stable/ops.h>

#include "checks.h"
#include "daj/bfloat16_mm.h"

namespace daj {
namespace {

constexpr int64_t kPanelsPerTask = 4;

void check_factor(const char* name, const Tensor& tensor, ScalarType type) {
    STD_TORCH_CHECK(tensor.dim() == 2, name, " needs two dimensions; got the shape ", shape_of(tensor));
    STD_TORCH_CHECK(tensor.scalar_type() == type, name, " needs ", name_of(type), "; got ", tensor.scalar_type());
    check_contiguous(name, tensor);
}

void bfloat16_mm_cpu(Tensor left, Tensor right, bool transposed, bool add, Tensor out) {
    STD_TORCH_CHECK(has_bfloat16_mm(), "this CPU has no AVX512-BF16, or the extension was built without it. Use "
                                       "torch.mm on float32 copies");
    check_factor("left", left, ScalarType::BFloat16);
    check_factor("right", right, ScalarType::BFloat16);
    check_factor("out", out, ScalarType::Float);
    const int64_t R = left.size(0), K = left.size(1), C = right.size(transposed ? 0 : 1);
    STD_TORCH_CHECK(right.size(transposed ? 1 : 0) == K, "right needs ", K, transposed ? " columns" : " rows",
                    " for left of shape ", shape_of(left), "; got the shape ", shape_of(right));
    STD_TORCH_CHECK(out.size(0) == R && out.size(1) == C, "out needs the shape (", R, ", ", C, "); got ",
                    shape_of(out));
    const Bfloat16Product product{static_cast<const uint16_t*>(left.const_data_ptr()),
                                  static_cast<const uint16_t*>(right.const_data_ptr()),
                                  out.mutable_data_ptr<float>(),
                                  R,
                                  C,
                                  K,
                                  transposed,
                                  add};
    torch::stable::parallel_for(0, cpu::num_panels(C), kPanelsPerTask, [&](int64_t first, int64_t last) {
        cpu::bfloat16_mm(product, first, last);
    });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(daj, library) {
    library.def("bfloat16_mm(Tensor left, Tensor right, bool transposed, bool add, Tensor(a!) out) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(daj, CPU, library) { library.impl("bfloat16_mm", TORCH_BOX(&bfloat16_mm_cpu)); }

}  // namespace daj
