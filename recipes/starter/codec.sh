#!/usr/bin/env bash
# What the demo loads, trained from nothing: text model, scalar autoencoder, descriptive branch, and the whole codec.
# Takes longer than the demo. Further corpora (YAML files, see docs/add_a_corpus.md) are heard beside the starter's where
# the codec learns to rebuild sounds; the shipped one heard five hours of real recordings, which assets/README.md names.
#
#   recipes/starter/codec.sh [RUN_FOLDER [CORPUS ...]]
set -euo pipefail
source "$(dirname "$0")/processes.sh"
run=${1:-runs/codec}
shift $(($# > 0))
corpora="[$(IFS=,; echo "$run/corpus${*:+,$*}")]"
mkdir -p "$run"

step "A starter corpus"
uniaudio corpus synthesise --out "$run/corpus"

step "A text model"
uniaudio train starter/text out="$run/text" --resume

step "Codec stage 0: the scalar autoencoder"
uniaudio train starter/scalar out="$run/scalar" corpora="$corpora" --resume

step "Codec stage 1: the descriptive branch answers the text model's questions"
train_shared starter/descriptive out="$run/descriptive" corpora="[$run/corpus]" text_model="$run/text/model" --resume

step "Codec stage 3: the structural branch and the flow decoder; stages 0 and 1 are frozen"
train_shared starter/codec out="$run/codec" corpora="$corpora" scalar="$run/scalar/model" descriptive="$run/descriptive/model" --resume

# What the text model learned to hear is where the language model starts.
cp "$run/descriptive/model/audio_llm.safetensors" "$run/codec/model/"

step "Done. Use it with: recipes/starter/demo.sh RUN_FOLDER $run/codec/model $run/text/model"
