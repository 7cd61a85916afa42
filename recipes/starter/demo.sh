#!/usr/bin/env bash
# The whole project at starter size, on the CPU: data, tokens, text model, four stages, evaluation, a clip per task.
# Every step can be run alone, and a step that is done already is passed over: run the file again after any interruption.
#
#   recipes/starter/demo.sh [RUN_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/../.."
run=${1:-runs/demo}
codec=recipes/starter/codec   # trained by recipes/starter/codec.sh, which takes longer than the demo
mkdir -p "$run"

step() { printf '\n[%2d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$1"; }

step "A starter corpus: two hours of speech, sounds and music, made here with exact labels"
uniaudio corpus synthesise --out "$run/corpus"

step "A token store: the corpus through the codec, 5 Hz descriptive and 12.5 Hz structural tokens"
uniaudio corpus store "$run/corpus" --codec "$codec" --out "$run/tokens"

step "A text model: what a pretrained LLaMA is to the full-size model"
uniaudio train recipes/starter/text.yaml out="$run/text" --resume

for stage in 1 2 3 4; do
    step "Stage $stage of 4"
    from=$([ "$stage" = 1 ] && echo "text_model=$run/text/model audio_tokenizer=$codec" || echo "init=$run/stage$((stage - 1))/model")
    # shellcheck disable=SC2086
    uniaudio train "recipes/starter/stage$stage.yaml" out="$run/stage$stage" store="$run/tokens" $from --resume
done
ln -sfn stage4/model "$run/model"

step "Evaluation on held-out voices, sentences, sounds and melodies, beside chance and the untrained model"
python evaluation/run_suite.py --model "$run/model" --store "$run/tokens" --corpus "$run/corpus" \
    --suite starter --limit 50 --out "$run/evaluation"
python evaluation/run_suite.py --model "$run/model" --store "$run/tokens" --corpus "$run/corpus" \
    --suite few_shot --shots 0 1 4 --limit 30 --out "$run/evaluation_few_shot"

step "One clip per generation task"
uniaudio speak "three seven one" --model "$run/model" --out "$run/clips/speech.wav"
uniaudio speak "the red bird sings" --voice "a low male voice speaking slowly" --model "$run/model" --out "$run/clips/voice.wav"
uniaudio compose "a slow piano melody in C major" --model "$run/model" --out "$run/clips/music.wav"
uniaudio compose "a dog barks" --sound --model "$run/model" --out "$run/clips/sound.wav"

step "Done. Report: $run/evaluation/report.html. Clips: $run/clips. Talk to it: make chat"
