"""Codec stage 1, supervised training of the descriptive branch (ReasoningCodec §2.5; UniAudio 2.0 §3).

A frozen text model with LoRA answers questions about recordings from the descriptive tokens alone: transcripts,
captions, attributes. Loss = cross-entropy of the answers + commitment. The expert encoders are frozen; the first steps
go without quantisation, so that the codebooks start from vectors that already mean something.

Beyond the paper, and off in the full recipe: `alignment_weight` adds a CTC loss that reads the transcript off the
branch's 25 Hz states. It aligns the branch with the words where there are hours of speech rather than years, and has
no cost at inference. `label_weight` adds one of linear heads that read the clips' labels off the quantised frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from auditory_sentences.builders.catalogue import label_values
from auditory_sentences.corpora.read import read_corpora
from codec.experts.config import ExpertConfig
from codec.io.errors import UserError
from codec.io.numbers import Filled, Index, NonNegative
from codec.reasoning.config import DescriptiveConfig, DescriptiveEncoderConfig
from codec.reasoning.descriptive_encoder import DescriptiveEncoder
from lm.text_tokenizer import TextTokenizer
from training.codec.audio_llm import AudioLLM, fingerprint_of, load_audio_llm
from training.codec.audio_qa import AudioQADataset
from training.codec.losses.codebook_usage import CodebookUsage
from training.codec.losses.weighted_sum import weighted_sum
from training.codec.supervision import SupervisionRecipe, held_out_scores, load_descriptive_encoder
from training.engine.attention import plain_attention
from training.engine.checkpoint import resolve_model
from training.engine.engine import Engine
from training.lm.audio_projector import AUDIO_LLM_FILE, save_audio_llm
from training.lm.lora import LoraRecipe
from training.resume import Resume
from training.run import Run

EXPERTS = (ExpertConfig("speech_text"), ExpertConfig("music"))


@dataclass(frozen=True, kw_only=True)
class DescriptiveRecipe(SupervisionRecipe):
    """Supervised training of the descriptive branch."""

    READS = ("corpora", "text_model", "init", "prompts", "experts.source")

    # a descriptive run, or a codec with its audio LLM beside it, whose training continues; empty: a new branch
    init: str = ""
    # expert encoders of the roles speech_text and music; left out: those of init, or spectral features
    experts: Annotated[tuple[ExpertConfig, ...], Filled()] | None = None
    # sizes of the branch; left out: those of init, or the published ones
    descriptive: DescriptiveConfig | None = None
    # adapters of the text model
    lora: LoraRecipe = LoraRecipe()
    # updates without quantisation, before the codebooks are used
    quantise_after: Index = 0
    # weight of the commitment loss beside the answers' loss
    commitment_weight: NonNegative = 1.0
    # weight of the CTC loss that reads transcripts off the branch's 25 Hz states
    alignment_weight: NonNegative = 0.0
    # weight of the loss of linear heads that read every label of a clip off its frames: gender, tempo, class, ...
    label_weight: NonNegative = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init and self.quantise_after:
            raise UserError("quantise_after must be 0 with init: a branch whose training continues keeps its codes")


def run(recipe: DescriptiveRecipe, resume: Resume = False) -> Path:
    """Train, and return the folder of the branch, which DescriptiveEncoder.from_pretrained reads.

    Beside the branch lies audio_llm.safetensors: projection, adapters and auxiliary head, with which the language model
    starts (training/lm/initialisation.py).
    """
    recipe = with_sizes(recipe)
    with Run(recipe, resume) as run:
        clips = read_corpora(recipe.corpora)
        tokenizer = TextTokenizer.from_pretrained(recipe.text_model)
        start = resolve_model(recipe.init) if recipe.init else None
        encoder = (
            load_descriptive_encoder(start)
            if start
            else DescriptiveEncoder(DescriptiveEncoderConfig(recipe.experts, recipe.descriptive))
        )
        questions = recipe.questions(recipe.augmentation)
        train, held_out = AudioQADataset.train_and_dev(
            clips, recipe.tasks, recipe.held_out_tasks, encoder, questions, recipe.seed
        )
        facts = {"clips": train.fingerprint, "text_tokenizer": tokenizer.fingerprint}
        if start:
            facts["init"] = fingerprint_of(start)
        run.check(facts)
        align = recipe.alignment_weight > 0
        labels = label_values(clip for clip in clips if clip.split == "train") if recipe.label_weight else {}
        if start:
            audio_llm, _, scale = load_audio_llm(
                encoder.branch,
                start,
                recipe.text_model,
                tokenizer,
                recipe.text_dtype,
                align,
                recipe.lora.dropout,
                labels,
            )
            audio_llm.train()
        else:
            audio_llm = AudioLLM(
                encoder.branch, recipe.text_model, tokenizer, recipe.lora, align, recipe.text_dtype, labels
            )
            scale = recipe.lora.alpha / recipe.lora.rank
        engine = Engine(audio_llm, recipe.optimiser, recipe.engine, recipe.steps, recipe.seed, run.engine_state())
        encoder.to(engine.device)
        usage = CodebookUsage(recipe.descriptive.quantiser.codebook_size, {"descriptive": range(8)})
        weights = {
            "answer": 1.0,
            "commitment": recipe.commitment_weight,
            "alignment": recipe.alignment_weight,
            "labels": recipe.label_weight,
        }
        write = partial(write_model, encoder, engine.trainable, scale)

        for step in run.steps():
            quantise = step > recipe.quantise_after
            for index in engine.micro_batches(step):
                batch = train.batch(index)
                with plain_attention(engine.device):
                    out = engine(**batch.inputs(engine.device), quantise=quantise)
                losses = {name: getattr(out, name) for name in weights}
                loss = weighted_sum(losses, weights)
                engine.backward(loss, names=batch.names)
                engine.record(loss=loss, **losses)
                if out.codes is not None:
                    usage.count(out.codes)
                run.metric_logger.count(audio_seconds=batch.seconds)
            engine.step()
            if run.log_due(step):
                run.metric_logger.write(step, engine.metrics() | (usage.report() if quantise else {}))
            if run.validate_due(step):
                with engine.evaluating():
                    scores = held_out_scores(audio_llm, held_out, recipe.held_out_limit, quantise, engine.device)
                run.metric_logger.write(step, scores)
            if run.save_due(step):
                run.save(step, {"model": engine}, write, facts)
    return run.model


def with_sizes(recipe: DescriptiveRecipe) -> DescriptiveRecipe:
    """The recipe with its experts and sizes filled in: those of `init`, or the defaults.

    Raises:
        UserError: the recipe states others than `init` has.
    """
    if not recipe.init:
        return replace(recipe, experts=recipe.experts or EXPERTS, descriptive=recipe.descriptive or DescriptiveConfig())
    start = resolve_model(recipe.init)
    with torch.device("meta"):  # the configuration alone: no weights are read, no random numbers drawn
        source = DescriptiveEncoder.from_pretrained(start)
    experts = source.config.experts if recipe.experts is None else recipe.experts
    sizes = source.branch.config if recipe.descriptive is None else recipe.descriptive
    if sizes != source.branch.config or any(expert not in experts for expert in source.config.experts):
        raise UserError(
            f"init: {start} was trained with other experts or sizes than this recipe states; leave experts and "
            "descriptive out, and those of init are taken"
        )
    return replace(recipe, experts=experts, descriptive=sizes)


def write_model(
    encoder: DescriptiveEncoder, trained: Mapping[str, Tensor], scale: float, folder: Path, state: Mapping[str, Tensor]
) -> None:
    """Fill a model folder from an audio LLM's state: the branch, and the audio LLM's own trained tensors beside it."""
    prefix = "branch."
    encoder.save_pretrained(folder, {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)})
    passing = (prefix, "label_heads.")  # the heads are of training alone
    own = {name: tensor for name, tensor in state.items() if name in trained and not name.startswith(passing)}
    save_audio_llm(own, scale, folder / AUDIO_LLM_FILE)
