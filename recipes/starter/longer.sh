#!/usr/bin/env bash
# After the demo: a quarter of an hour more of training on four cores, most of it for speech, and the evaluation again.
#
#   recipes/starter/longer.sh [RUN_FOLDER]
set -euo pipefail
source "$(dirname "$0")/processes.sh"
run=${1:-runs/demo}

step "Stage 4 goes on: speech above all"
train starter/longer out="$run/longer" store="$run/tokens" init="$run/stage4" --resume
ln -sfn longer/model "$run/model"

step "Evaluation on held-out voices, sentences, sounds and melodies, with 0, 1 and 4 shots"
uniaudio evaluate --model "$run/model" --store "$run/tokens" --corpus "$run/corpus" \
    --suite starter few_shot --shots 0 1 4 --limit 40 --out "$run/evaluation_longer" --untrained "$run/evaluation" --force

step "Done. The report: $run/evaluation_longer/report.html. make chat now talks to this model"
