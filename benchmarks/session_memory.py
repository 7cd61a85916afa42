"""What earlier turns do to an answer: recognition of held-out speech after 0, 1 and 3 turns of something else.

    python benchmarks/session_memory.py --model runs/demo/model --corpus runs/demo/corpus [--limit 40]

The earlier turns are a caption of a sound, a transcription of another clip and a question about music, each with its
right answer, as in a session where the model answered well. Prints the word error rate for each number of turns.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jiwer

from auditory_sentences.builders.tasks import request
from auditory_sentences.corpora.read import read_corpus
from auditory_sentences.sentence import AuditorySentence, Segment
from lm.generation.settings import GenerationSettings
from uniaudio.model import UniAudio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--corpus", required=True, type=Path)
    parser.add_argument("--limit", type=int, default=40)
    arguments = parser.parse_args()

    model = UniAudio.from_pretrained(arguments.model)
    clips = [clip for clip in read_corpus(arguments.corpus) if clip.split == "test"]
    speech = [clip for clip in clips if clip.kind == "speech" and clip.text]
    sounds = [clip for clip in clips if clip.kind == "sound"]
    music = [clip for clip in clips if clip.kind == "music" and "instrument" in clip.labels]
    asked = speech[: arguments.limit]
    settings = GenerationSettings(max_rows=60, top_k=1)

    def turns(number: int) -> list[tuple[Segment, ...]]:
        """Three solved turns, other ones for every clip."""
        sound, other, piece = sounds[number % len(sounds)], speech[-1 - number], music[number % len(music)]
        question = "Which instrument plays?"
        return [
            (*request("sound_caption", audio=model.tokens_of(sound.path)).sentence.segments,
             Segment("caption", sound.caption)),
            (*request("asr", audio=model.tokens_of(other.path)).sentence.segments,
             Segment("transcription", other.text)),
            (*request("audio_qa", question=question, audio=model.tokens_of(piece.path)).sentence.segments,
             Segment("text", piece.labels["instrument"])),
        ]  # fmt: skip

    earlier = [turns(number) for number in range(len(asked))]
    for count in (0, 1, 3):
        sentences = [
            AuditorySentence(
                (
                    *(segment for turn in before[:count] for segment in turn),
                    *request("asr", audio=model.tokens_of(clip.path)).sentence.segments,
                )
            )
            for clip, before in zip(asked, earlier, strict=True)
        ]
        said = model.complete(sentences, "transcription", settings, [0] * len(asked))
        rate = jiwer.wer([clip.text for clip in asked], [s.segment.content or "-" for s in said])
        print(f"{count} earlier turns: word error rate {rate:.3f}, {len(asked)} clips")


if __name__ == "__main__":
    main()
