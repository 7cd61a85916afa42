"""Codec stage 0, where no speech encoder is available: train one from scratch that writes what is said (CTC).

Loss = mean of the CTC losses at the depths that are read. What its middle states tell apart is what letters need,
phones, whoever speaks: the codec's phone expert. UniAudio 2.0 (§3) has WavLM there; CosyVoice (Du et al. 2024, arXiv
2407.05407, §2.1) takes the units of an encoder that was trained on transcripts, as here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import jiwer
from torch import Tensor, nn

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.rng import stable_hash
from codec.audio.waveform import audio_length
from codec.experts.music_encoder import MusicEncoder, MusicEncoderConfig
from codec.io.errors import UserError
from codec.io.numbers import Count, NonNegative, Seconds, Size
from codec.tokens import SAMPLE_RATE
from lm.words import normalise_words
from training.codec.audio_crops import AudioCrops, Crop, Decibels, check_corpus_shares, load_batch, random_gains
from training.codec.experts.train_expert import settle_statistics, write_model
from training.codec.losses.ctc import CTCConfig, CTCReader, Letters, frames_needed
from training.engine.engine import Engine, seed_everything
from training.recipe import Corpora, Recipe
from training.resume import Resume
from training.run import Run


@dataclass(frozen=True, kw_only=True)
class CTCRecipe(Recipe):
    """An encoder that learns to write what is said."""

    READS = ("corpora",)

    # folders or descriptions of corpora; of their train clips those of speech with a text, validated on dev clips
    corpora: Corpora
    # share of each of corpora, in their order, in the clips; empty: every clip alike
    corpus_shares: tuple[NonNegative, ...] = ()
    # sizes of the encoder; with hop 120 it has the 50 frames a second of a speech or phone expert
    encoder: MusicEncoderConfig = field(default_factory=partial(MusicEncoderConfig, hop=120))
    # what is read and what is hidden
    ctc: CTCConfig = CTCConfig()
    # clips in a micro-batch
    batch: Size = 12
    # seconds of a clip, at most; longer ones are left out, since nobody knows which of their words a part has
    clip_seconds: Seconds = 15.0
    # dB; clips are scaled by a random gain between this and +3 dB
    quietest_db: Decibels = -12.0
    # training batches for the statistics of batch norms, for every encoder that is saved
    statistics_batches: Count = 20
    # batches of dev clips at validation
    held_out_batches: Count = 8

    def __post_init__(self) -> None:
        check_corpus_shares(self.corpora, self.corpus_shares)
        if self.encoder.sample_rate != SAMPLE_RATE:
            raise UserError(f"encoder.sample_rate must be {SAMPLE_RATE}, the rate of every waveform here")
        if self.engine.precision == "bf16":
            raise UserError("engine.precision bf16 would round spectra and losses; use mixed for an encoder of speech")


def run(recipe: CTCRecipe, resume: Resume = False) -> Path:
    """Train, and return the folder of the encoder, which MusicEncoder.from_pretrained reads."""
    with Run(recipe, resume) as run:
        fits = WrittenSpeech(recipe)
        train, held_out = spoken_clips(recipe, fits)
        facts = {"clips": train.fingerprint, "texts": f"{stable_hash(*(clip.text for clip in train.clips)):016x}"}
        run.check(facts)
        encoder = MusicEncoder(recipe.encoder)
        model = CTCReader(encoder, recipe.ctc, Letters([clip.text for clip in train.clips]))
        engine = Engine(model, recipe.optimiser, recipe.engine, recipe.steps, recipe.seed, run.engine_state())
        if fits.left_out:
            run.metric_logger.info(fits.why)

        def loss_of(crops: Sequence[Crop]) -> Tensor:
            waveforms, frames = padded(crops, recipe.encoder.samples_per_frame)
            waveforms = waveforms * random_gains(len(crops), recipe.quietest_db)
            loss: Tensor = engine(waveforms.to(engine.device), frames.to(engine.device), [c.clip.text for c in crops])
            return loss

        for step in run.steps():
            for index in engine.micro_batches(step):
                crops = train.batch(index)
                loss = loss_of(crops)
                engine.backward(loss, names=[crop.clip.id for crop in crops])
                engine.record(loss=loss)
                run.metric_logger.count(audio_seconds=sum(crop.length for crop in crops) / SAMPLE_RATE)
            engine.step()
            if run.log_due(step):
                run.metric_logger.write(step, engine.metrics())
            validate_due, save_due = run.validate_due(step), run.save_due(step)
            if validate_due or save_due:
                settle_statistics(engine, recipe.seed, recipe.statistics_batches, lambda i: loss_of(train.batch(i)))
            if validate_due:
                with engine.evaluating():
                    run.metric_logger.write(step, validate(engine, model, loss_of, held_out, recipe))
            if save_due:
                run.save(step, {"model": engine}, partial(write_model, encoder), facts)
    return run.model


class WrittenSpeech:
    """Which clips can be learned from: speech with a text, whole, that is long enough for its letters."""

    def __init__(self, recipe: CTCRecipe) -> None:
        self.seconds, self.samples_per_frame = recipe.clip_seconds, recipe.encoder.samples_per_frame
        self.left_out = 0  # clips of speech with a text that cannot

    def __call__(self, clip: Clip) -> bool:
        letters = normalise_words(clip.text) if clip.kind == "speech" else ""
        if not letters or clip.split not in ("train", "dev"):
            return False
        samples = audio_length(clip.path)
        fits = samples <= self.seconds * SAMPLE_RATE and samples // self.samples_per_frame >= frames_needed(letters)
        self.left_out += not fits
        return fits

    @property
    def why(self) -> str:
        """One line on what was left out."""
        return (
            f"left out: {self.left_out} clips of speech that are longer than {self.seconds:g} s (clip_seconds), or too "
            "short for their text"
        )


def spoken_clips(recipe: CTCRecipe, fits: WrittenSpeech) -> tuple[AudioCrops, AudioCrops]:
    """Whole clips to learn from, and such to validate on.

    Raises:
        UserError: there are none.
    """
    try:
        return AudioCrops.train_and_dev(
            recipe.corpora,
            recipe.batch,
            recipe.clip_seconds,
            recipe.seed,
            kinds={"speech": 1.0},
            shares=recipe.corpus_shares,
            fits=fits,
        )
    except UserError as error:
        if not fits.left_out:
            raise
        raise UserError(f"{error}; {fits.why}") from error


def padded(crops: Sequence[Crop], frame: int) -> tuple[Tensor, Tensor]:
    """Waveforms (B, n), silent beyond their ends up to a whole frame of the longest; whole frames (B,) of each.

    Args:
        crops: B of them.
        frame: samples of a frame.
    """
    waveforms, lengths = load_batch(crops)
    return nn.functional.pad(waveforms, (0, -waveforms.shape[1] % frame)), lengths // frame


def validate(
    engine: Engine,
    model: CTCReader,
    loss_of: Callable[[Sequence[Crop]], Tensor],
    held_out: AudioCrops,
    recipe: CTCRecipe,
) -> dict[str, float]:
    """Loss on the same held-out batches, and the share of the letters that are wrong where nothing is hidden."""
    loss, said, written = 0.0, [], []
    for index in range(recipe.held_out_batches):
        seed_everything(recipe.seed, -3, index)
        crops = held_out.batch(index)
        loss += float(loss_of(crops)) / recipe.held_out_batches
        waveforms, frames = padded(crops, recipe.encoder.samples_per_frame)
        written += model.read(waveforms.to(engine.device), frames)
        said += [normalise_words(crop.clip.text) for crop in crops]
    return {"val/loss": loss, "val/letters_wrong": jiwer.cer(said, written)}
