#!/usr/bin/env bash
# The wheels that benchmarks/gpu.sh needs on a machine that has a torch with CUDA, numpy, scipy, pandas, pyarrow, PyYAML,
# safetensors, psutil and huggingface_hub, as images of PyTorch do, for its Python.
#
#   benchmarks/gpu_wheels.sh WHEELS [PYTHON_VERSION]
#
# About 50 MiB. DeepSpeed is built here without its own operators, and is the same for every Python.
set -euo pipefail
wheels=$1 python=${2:-3.12}
mkdir -p "$wheels"
pip download -q --python-version "$python" --only-binary=:all: --no-deps -d "$wheels" \
    transformers==5.23.0 tokenizers==0.23.3 peft datasets dill multiprocess xxhash soundfile cffi pycparser sentencepiece \
    frozendict vector-quantize-pytorch torch-einops-utils einops einx jiwer rapidfuzz espeakng-loader pystoi typer click \
    shellingham rich markdown-it-py mdurl pygments msgpack pydantic==2.12.5 pydantic-core==2.41.5 annotated-types \
    typing-inspection hypothesis sortedcontainers hjson loguru py-cpuinfo pytest pluggy iniconfig
DS_BUILD_OPS=0 pip wheel -q --no-deps -w "$wheels" deepspeed
du -sh "$wheels"
