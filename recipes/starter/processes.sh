# Sourced by the starter's scripts: how training uses the machine.

# Cores, GPUs and a precision: products in bfloat16 make training faster on processors that have them, and many times
# slower on all others.
read -r cores gpus precision < <(python -P -c 'import os
import torch
from codec.layers.onednn import has_bfloat16
cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
print(cores, torch.cuda.device_count(), "" if has_bfloat16() else "engine.precision=fp32")')
most() { echo $(($1 > 4 ? 4 : $1)); }

# oneDNN keeps what it prepared for every shape of matrix, 1,024 of them by default: a gigabyte for each process here.
export ONEDNN_PRIMITIVE_CACHE_CAPACITY=64

# Ctrl-C saves and ends with status 130, at which the scripts end too.
# An update of the language model is one batch, which two threads of one process compute in four fifths of the time that
# two processes need for its halves.
train() { OMP_NUM_THREADS=$(most "$cores") uniaudio train "$@" $precision; }

# The codec's stages have four micro-batches an update, for 1, 2 or 4 processes: the same run, to rounding.
processes=$(most "$((gpus ? gpus : cores))")
train_shared() { OMP_NUM_THREADS=1 uniaudio train --processes "$((processes == 3 ? 2 : processes))" "$@" $precision; }

step() { printf '\n[%2d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$1"; }
