#!/usr/bin/env bash
# ALMTokenizer and all its ablations at starter size, each scored at three windows: quality, rate, cost.
#   recipes/starter/almtokenizer_ablations.sh RUN_FOLDER CORPUS [STEPS_OF_THE_FIRST_STAGE STEPS_OF_THE_SECOND SEED]
set -euo pipefail
run=$1 corpora="[$2]" autoencoder=${3:-1600} quantiser=${4:-800} seed=${5:-0}
one() {  # NAME STAGE CHANGES...
    uniaudio train "starter/almtokenizer_$2" out="$run/$1" corpora="$corpora" steps="${!2}" seed="$seed" "${@:3}" --resume
}
one whole_1 autoencoder
one no_masking_1 autoencoder masked.share=0
one mean_pool_1 autoencoder tokenizer.downsampling=mean_pool
one one_window_1 autoencoder tokenizer.least_window=6 tokenizer.most_window=6
for name in whole no_masking mean_pool one_window; do one $name quantiser init="$run/${name}_1"; done
one no_prior quantiser init="$run/whole_1" priors='[]'
one no_next_query quantiser init="$run/whole_1" next_query.weight=0
python benchmarks/almtokenizer_windows.py --corpus "$2" --windows 2 6 10 --codec \
    "$run"/{whole,no_masking,mean_pool,no_prior,no_next_query}/model
python benchmarks/almtokenizer_windows.py --corpus "$2" --windows 6 --codec "$run/one_window/model"
