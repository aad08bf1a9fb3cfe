"""Builds the kernels in csrc/ beside the pure-Python package; installs without them where it cannot.

Two libraries land in daj_lightning/kernels/: `libdaj.so` (the torch.ops.daj operators, against torch's
stable ABI) and `_C` (facts about the build). `_build.json` beside them says what was built, or why not.

    DAJ_BUILD_EXT=0     skip the extension
    DAJ_REQUIRE_EXT=1   a failed build is an error, no fallback
    DAJ_CUDA=1 / 0      compile the CUDA half for a CPU torch too (needs nvcc) / never
    CXX, CUDA_HOME      compiler and CUDA toolkit to use
"""

from __future__ import annotations

import json
import os
import platform
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
KERNELS = Path("daj_lightning", "kernels")
# sm_80: A100; sm_90: H100 and H200; later GPUs compile the embedded PTX when they first load it.
CUDA_ARCHS = {"sm_80": "arch=compute_80,code=sm_80", "sm_90": "arch=compute_90,code=[sm_90,compute_90]"}
OLDEST_TORCH = (2, 11)


class BuildFailed(Exception):
    """Why there will be no extension; its text goes into _build.json."""


@dataclass(frozen=True)
class Torch:
    """The torch of the environment that this package is installed into."""

    root: Path
    version: str
    cuda: str | None

    @classmethod
    def find(cls) -> Torch:
        """Look where the interpreter keeps its packages: pip's isolated build hides them from `import`."""
        for name in ("purelib", "platlib"):
            root = Path(sysconfig.get_path(name), "torch")
            if (root / "version.py").is_file():
                facts = runpy.run_path(str(root / "version.py"))
                torch = cls(root, str(facts["__version__"]), facts["cuda"])
                torch.check()
                return torch
        raise BuildFailed(f"no torch in {sysconfig.get_path('purelib')}. Install torch there, then this package again.")

    def check(self) -> None:
        major, minor = (int(part) for part in self.version.split(".")[:2])
        if (major, minor) < OLDEST_TORCH:
            raise BuildFailed(f"torch {self.version} is too old: the extension needs 2.11 or later.")


@dataclass(frozen=True)
class CudaToolkit:
    nvcc: str
    root: Path
    version: str

    @classmethod
    def find(cls, torch: Torch) -> CudaToolkit | None:
        """The toolkit for the CUDA half, None where the half is not wanted.

        Raises:
            BuildFailed: it is wanted, and there is no nvcc.
        """
        wanted = os.environ.get("DAJ_CUDA", "1" if torch.cuda else "0")
        if wanted == "0":
            return None
        home = os.environ.get("CUDA_HOME")
        places = [Path(home, "bin", "nvcc")] if home else []
        places += [Path(shutil.which("nvcc") or ""), Path("/usr/local/cuda/bin/nvcc")]
        nvcc = next((str(place) for place in places if place.is_file()), None)
        if nvcc is None:
            raise BuildFailed(
                "the CUDA half needs nvcc, and neither CUDA_HOME nor PATH leads to one. Install the CUDA "
                "toolkit, or set DAJ_CUDA=0 for the CPU half alone."
            )
        # The nvcc on PATH may be a wrapper script; nvcc itself knows where its toolkit lies.
        dry_run = subprocess.run(
            [nvcc, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True, check=False
        ).stderr
        top = re.search(r"^#\$ TOP=(.+)$", dry_run, re.MULTILINE)
        release = re.search(r"release ([\d.]+)", run([nvcc, "--version"]))
        if top is None or release is None:
            raise BuildFailed(f"{nvcc} does not answer like nvcc: {dry_run.strip()[:200]!r}.")
        return cls(nvcc, Path(top[1].strip()).resolve(), release[1])

    def library_dir(self) -> Path:
        for archive in sorted(self.root.glob("**/libcudart_static.a")):
            return archive.parent
        raise BuildFailed(f"no libcudart_static.a under {self.root}: the CUDA toolkit is incomplete.")


def run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise BuildFailed(f"{command[0]} not found: {error}.") from error
    except subprocess.CalledProcessError as error:
        output = (error.stdout + error.stderr).strip()
        raise BuildFailed(f"`{shlex.join(command)}` failed: {output[-2000:] or 'no output'}") from error
    return done.stdout


def find_compiler() -> str:
    """The C++ compiler, as words of a shell command."""
    if os.environ.get("CXX"):
        return os.environ["CXX"]
    for name in ("g++", "clang++", "c++"):
        if shutil.which(name):
            return name
    raise BuildFailed("no C++ compiler: neither g++, clang++ nor c++ is on PATH. Install one, or set CXX.")


def build(target: Path) -> dict[str, object]:
    """Compile csrc/ into `target`/daj_lightning/kernels; returns what _build.json records."""
    import pybind11

    if platform.system() != "Linux":
        raise BuildFailed(f"the extension is built on Linux only; this is {platform.system()}.")
    torch = Torch.find()
    compiler = find_compiler()
    cuda = CudaToolkit.find(torch)
    work = ROOT / "build" / "kernels"
    work.mkdir(parents=True, exist_ok=True)
    facts = {
        "torch": torch.version,
        "cuda": cuda.version if cuda else "",
        "cuda_archs": ",".join(CUDA_ARCHS) if cuda else "",
    }
    write_if_changed(work / "build_facts.h", build_facts(facts))
    module = f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    rules = ninja_file(torch, compiler, cuda, Path(pybind11.get_include()), module)
    write_if_changed(work / "build.ninja", rules)
    run([sys.executable, "-m", "ninja", "-C", str(work)])
    for name in ("libdaj.so", module):
        shutil.copy2(work / name, target / KERNELS / name)
    return {"built": True, "reason": "", **facts}


def build_facts(facts: dict[str, str]) -> str:
    """The header that csrc/bindings reads."""
    return (
        "#pragma once\n"
        f'#define DAJ_TORCH_VERSION "{facts["torch"]}"\n'
        f'#define DAJ_CUDA_VERSION "{facts["cuda"]}"\n'
        f'#define DAJ_CUDA_ARCHS "{facts["cuda_archs"]}"\n'
    )


def ninja_file(torch: Torch, compiler: str, cuda: CudaToolkit | None, pybind11: Path, module: str) -> str:
    """The build, for ninja."""
    for path in (ROOT, torch.root, pybind11):
        if re.search(r"[\s$:]", str(path)):
            raise BuildFailed(f"the path {str(path)!r} holds a space, '$' or ':', which break the build.")
    includes = f"-I{ROOT}/csrc/include"
    ops = [source for source in sources("*/*.cpp") if not source.startswith("csrc/bindings/")]
    if not cuda:
        ops = [source for source in ops if not source.endswith("_cuda.cpp")]
    libraries = f"-L{torch.root}/lib -Wl,--no-as-needed -ltorch_cpu"
    if cuda and torch.cuda:
        libraries += " -ltorch_cuda"
    if cuda:
        # Static: the toolkit's version may differ from the one that torch carries.
        libraries += f" -L{cuda.library_dir()} -lcudart_static -lrt -lpthread -ldl"
    lines = [
        # No -march: csrc/include/daj/simd.h picks the instruction set when the library loads. The maps
        # keep this machine's paths out of the binary. Nobody reads errno or floating-point traps, and for their sake
        # sqrt and a division behind a condition would go one float at a time.
        "cxxflags = -O3 -fno-math-errno -fno-trapping-math -std=c++20 -fPIC -fvisibility=hidden -Wall -Wno-psabi "
        f"-ffile-prefix-map={ROOT}/= -ffile-prefix-map={torch.root}=torch -ffile-prefix-map={pybind11}=pybind11 "
        f"{includes}",
        f"torchflags = -DTORCH_TARGET_VERSION=0x020b000000000000 -isystem {torch.root}/include",
        f"pyflags = -isystem {pybind11} -isystem {sysconfig.get_path('include')} -I.",
        "rule cxx",
        f"  command = {compiler} -MMD -MF $out.d $cxxflags $extra -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        f"  command = {compiler} -shared $in -o $out $libraries",
    ]
    for source in ops:
        extra = "$torchflags" if source.startswith("csrc/ops/") else ""
        lines += [f"build {object_of(source)}: cxx {ROOT}/{source}", f"  extra = {extra}"]
    if cuda:
        archs = " ".join(f"-gencode {flag}" for flag in CUDA_ARCHS.values())
        lines += [
            "rule nvcc",
            f"  command = {cuda.nvcc} -MMD -MF $out.d -O3 -std=c++17 -Xcompiler -fPIC,-fvisibility=hidden "
            f"{archs} {includes} -c $in -o $out",
            "  depfile = $out.d",
            "  deps = gcc",
        ]
        kernels = sources("cuda/*.cu")
        lines += [f"build {object_of(source)}: nvcc {ROOT}/{source}" for source in kernels]
        ops += kernels
    objects = " ".join(object_of(source) for source in ops)
    binding = "csrc/bindings/module.cpp"
    lines += [
        f"build libdaj.so: link {objects}",
        f"  libraries = {libraries}",
        f"build {object_of(binding)}: cxx {ROOT}/{binding} | build_facts.h",
        "  extra = $pyflags",
        f"build {module}: link {object_of(binding)}",
        "",
    ]
    return "\n".join(lines)


def sources(pattern: str) -> list[str]:
    """Files of csrc/, relative to the project, in a fixed order."""
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").glob(pattern))


def object_of(source: str) -> str:
    return source.replace("/", "_") + ".o"


def write_if_changed(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


class BuildKernels(build_ext):
    """build_ext with ninja and a fallback: without an extension the package runs on plain torch."""

    def run(self) -> None:
        target = ROOT if self.inplace or self.editable_mode else Path(self.build_lib).resolve()
        kernels = target / KERNELS
        kernels.mkdir(parents=True, exist_ok=True)
        # First of all: a stale library would be loaded while the record says that there is none.
        for stale in [*kernels.glob("*.so"), kernels / "_build.json"]:
            stale.unlink(missing_ok=True)
        try:
            if os.environ.get("DAJ_BUILD_EXT") == "0":
                raise BuildFailed("DAJ_BUILD_EXT=0 at installation.")
            record = build(target)
        except BuildFailed as failure:
            record = {"built": False, "reason": str(failure)}
        (kernels / "_build.json").write_text(json.dumps(record, indent=2) + "\n")
        if not record["built"]:
            if os.environ.get("DAJ_REQUIRE_EXT") == "1":
                raise SystemExit(f"DAJ_REQUIRE_EXT=1, and the extension was not built: {record['reason']}")
            print(f"daj-lightning: installing without kernels: {record['reason']}", file=sys.stderr)

    def get_outputs(self) -> list[str]:
        kernels = Path(self.build_lib, KERNELS)
        return [str(path) for path in [*kernels.glob("*.so"), kernels / "_build.json"]]

    def get_output_mapping(self) -> dict[str, str]:
        return {}  # an editable install writes straight into the source tree


setup(ext_modules=[Extension("daj_lightning.kernels._C", sources=[])], cmdclass={"build_ext": BuildKernels})
