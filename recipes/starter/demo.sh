#!/usr/bin/env bash
# The whole project at starter size, on the CPU: data, tokens, four stages, evaluation, a clip per generation task.
# Each line can be run alone. What is done already is passed over: run the file again after any interruption.
#
#   recipes/starter/demo.sh [RUN_FOLDER [CODEC [TEXT_MODEL [SEED]]]]
set -euo pipefail
source "$(dirname "$0")/processes.sh"
run=${1:-runs/demo}
codec=${2:-starter/codec}           # both were trained by recipes/starter/codec.sh
text_model=${3:-starter/text_model}
seed=${4:-2048}
mkdir -p "$run"

step "A starter corpus: over three hours of speech, sounds and music, made here with exact labels"
uniaudio corpus synthesise --out "$run/corpus"

step "A token store: the corpus through the codec, which a language model then takes from its store"
uniaudio corpus store "$run/corpus" --codec "$codec" --out "$run/tokens"

step "Stage 1 of 4, understanding warm-up: the understanding layers learn to hear, the text model is frozen"
train starter/stage1 out="$run/stage1" store="$run/tokens" text_model="$text_model" seed="$seed" --resume

step "Stage 2 of 4, generation warm-up: the generation layers and the depth decoder learn to speak"
train starter/stage2 out="$run/stage2" store="$run/tokens" init="$run/stage1/model" seed="$seed" --resume

step "Stage 3 of 4, audio-text pre-training: everything learns, first to follow the text"
train starter/stage3_from_text out="$run/stage3_from_text" store="$run/tokens" init="$run/stage2/model" seed="$seed" --resume

step "Stage 3 of 4, then every task"
train starter/stage3 out="$run/stage3" store="$run/tokens" init="$run/stage3_from_text/model" seed="$seed" --resume

step "Stage 4 of 4, audio-text mid-training: auditory sentences, few-shot episodes, twice the context"
train starter/stage4 out="$run/stage4" store="$run/tokens" init="$run/stage3/model" seed="$seed" --resume
ln -sfn stage4/model "$run/model"

step "Evaluation on held-out voices, sentences, sounds and melodies, with 0, 1 and 4 shots"
uniaudio evaluate --model "$run/model" --store "$run/tokens" --corpus "$run/corpus" \
    --suite starter few_shot --shots 0 1 4 --limit 40 --out "$run/evaluation" --force

step "One clip for each generation task"
mkdir -p "$run/clips"
uniaudio speak "three seven one" --model "$run/model" --out "$run/clips/speech.wav" --force
uniaudio speak "the red bird sings" --voice "a low male voice speaking slowly" --model "$run/model" --out "$run/clips/voice.wav" --force
uniaudio compose "a slow piano melody in C major" --model "$run/model" --out "$run/clips/music.wav" --force
uniaudio compose "a dog barks" --sound --model "$run/model" --out "$run/clips/sound.wav" --force

step "Done. The report: $run/evaluation/report.html. The clips: $run/clips. Talk to it: make chat"
