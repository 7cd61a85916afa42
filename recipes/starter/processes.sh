# Sourced by the starter's scripts: train on as many processes as there are GPUs or, without one, cores; at most four.
# The stages have four micro-batches an update, so 1, 2 and 4 processes give the same run, to rounding.
count=$(python -P -c 'import os, torch
print(torch.cuda.device_count() or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()))')
processes=$((count >= 4 ? 4 : count >= 2 ? 2 : 1))

# oneDNN keeps what it prepared for every shape of matrix, 1,024 of them by default: a gigabyte for each process here.
export ONEDNN_PRIMITIVE_CACHE_CAPACITY=64

# Matrix products in bfloat16 make training faster on processors that have them, and many times slower on all others.
precision=$(python -P -c 'from codec.layers.onednn import has_bfloat16; print("" if has_bfloat16() else "engine.precision=fp32")')

# Ctrl-C saves and ends with status 130, at which the scripts end too.
train() { OMP_NUM_THREADS=1 uniaudio train --processes "$processes" "$@" $precision; }

step() { printf '\n[%2d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$1"; }
