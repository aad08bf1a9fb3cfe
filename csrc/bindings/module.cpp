// daj_lightning.kernels._C: facts about the build and the machine. Tensors go through torch.ops.daj, never through here.
#include <pybind11/pybind11.h>

#include <string>

#include "build_facts.h"  // written by setup.py into the build directory
#include "daj/bfloat16_mm.h"

namespace py = pybind11;

namespace {

std::string compiler() {
#if defined(__clang__)
    return "clang " __clang_version__;
#elif defined(__GNUC__)
    return "gcc " __VERSION__;
#else
    return "unknown";
#endif
}

py::dict build_info() {
    py::dict facts;
    facts["compiler"] = compiler();
    facts["torch"] = DAJ_TORCH_VERSION;
    facts["cuda"] = DAJ_CUDA_VERSION;
    facts["cuda_archs"] = DAJ_CUDA_ARCHS;
    return facts;
}

}  // namespace

PYBIND11_MODULE(_C, module) {
    module.doc() = "Facts about the build of DAJ's kernels.";
    module.def("build_info", &build_info,
               "Compiler, and the versions of torch and CUDA that the extension was built with, as strings. The last "
               "two are empty where the CUDA half was left out.");
    module.def("has_bfloat16_mm", &daj::has_bfloat16_mm,
               "Whether torch.ops.daj.bfloat16_mm works on this machine's CPU (AVX512-BF16).");
}
