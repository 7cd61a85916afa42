#!/usr/bin/env bash
# After the demo: every task in one checkpoint, on a corpus that has material for all of them.
#
#   recipes/starter/all_tasks.sh [RUN_FOLDER [CODEC]]
set -euo pipefail
source "$(dirname "$0")/processes.sh"
run=${1:-runs/demo}
codec=${2:-starter/codec}

step "A corpus for all tasks: speech edited, in rooms, in noise; two at once; questions and answers; songs"
uniaudio corpus synthesise --all-tasks --out "$run/all_tasks_corpus"

step "Its tokens"
uniaudio corpus store "$run/all_tasks_corpus" --codec "$codec" --out "$run/all_tasks_tokens"

step "Stage 4 goes on, with every task"
train starter/all_tasks out="$run/all_tasks" store="$run/all_tasks_tokens" init="$run/stage4/model" --resume

step "Evaluation of the tasks that the demo does not have"
uniaudio evaluate --model "$run/all_tasks/model" --store "$run/all_tasks_tokens" --corpus "$run/all_tasks_corpus" \
    --suite all_tasks new_tasks --limit 40 --out "$run/evaluation_all_tasks" --force

step "Done. Use it: uniaudio clone --model $run/all_tasks/model --voice VOICE.wav 'three seven one'"
