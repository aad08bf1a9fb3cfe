#!/usr/bin/env bash
# Make a virtual environment with DAJ in it: tools/install.sh [DIRECTORY]
# Without an NVIDIA driver, torch comes as its CPU build: the default Linux wheel brings gigabytes of CUDA.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
torch='torch>=2.11,<2.14'

for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
  if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
[ -n "${python:-}" ] || { echo "error: no Python 3.11 to 3.13 found; set PYTHON to one." >&2; exit 2; }

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check)
"${pip[@]}" install --quiet --upgrade pip

if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
  if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then
    "${pip[@]}" install "$torch"
  else
    # torch from PyTorch's CPU index. Where that cannot be reached, the CPU build that pip knows of; if that would
    # bring CUDA along, stop and let the user decide.
    "${pip[@]}" install --retries 1 --timeout 30 --index-url https://download.pytorch.org/whl/cpu "$torch" || {
      plan=$("${pip[@]}" install --dry-run --quiet --report - "$torch")
      if [ "${DAJ_ALLOW_CUDA_TORCH:-0}" != 1 ] && grep -qiE '"name": *"(nvidia-|cuda-|triton)' <<<"$plan"; then
        echo "error: PyTorch's CPU index does not answer, and pip's torch would bring gigabytes of CUDA." >&2
        echo "Try again, install a CPU torch into $venv, or set DAJ_ALLOW_CUDA_TORCH=1." >&2
        exit 2
      fi
      "${pip[@]}" install "$torch"
    }
  fi
fi
# The extension is compiled against the torch above; isolation never downloads another one (see setup.py).
"${pip[@]}" install --editable '.[dev,serve]'
