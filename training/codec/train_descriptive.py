"""Codec stage 1, supervised training of the descriptive branch (ReasoningCodec §2.5; UniAudio 2.0 §3).

A frozen text model with LoRA answers questions about recordings from the descriptive tokens alone: transcripts,
captions, attributes. Loss = cross-entropy of the answers + commitment. The expert encoders are frozen; the first steps
go without quantisation, so that the codebooks start from vectors that already mean something.

Beyond the paper, and off in the full recipe: `alignment_weight` adds a CTC loss that reads the transcript off the
branch's 25 Hz states. It teaches where the words are when there are hours of speech rather than years, and costs
nothing later.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import jiwer
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.corpora.read import read_corpora
from codec.experts.config import ExpertConfig
from codec.io.errors import UserError
from codec.io.numbers import Count, Filled, Index, Name, NonNegative, Seconds, Size
from codec.reasoning.config import DescriptiveConfig, DescriptiveEncoderConfig
from codec.reasoning.descriptive_encoder import DescriptiveEncoder
from lm.text_tokenizer import TextTokenizer
from training.codec.audio_llm import LISTENER_FILE, AudioLLM, Lora, fingerprint_of, load_listener, save_listener
from training.codec.audio_qa import AudioQADataset, Augmentation, train_and_held_out
from training.codec.losses.codebook_usage import CodebookUsage
from training.engine.checkpoint import resolve_model
from training.engine.engine import Engine
from training.recipe import Corpora, Recipe, Weights, check_weights
from training.resume import Resume
from training.run import Run

PRECISION = {"fp32": torch.float32, "bf16": torch.bfloat16}
TASKS = {"asr": 6.0, "speech_caption": 1.0, "sound_caption": 1.0, "music_caption": 1.0, "audio_qa": 2.0}
HELD_OUT = ("asr", "audio_qa:class", "audio_qa:instrument")


@dataclass(frozen=True, kw_only=True)
class DescriptiveRecipe(Recipe):
    """What the descriptive branch learns from and how.

    corpora: folders or descriptions of corpora; their train clips teach, their dev clips are held out
    text_model: folder or hub id of the text model, tokenizer included; text_precision: it is frozen in this type
    init: a descriptive run, or a codec with its audio LLM beside it, that learns on; empty: from nothing
    experts: of the roles speech_text and music; descriptive: sizes of the branch
    tasks: name -> weight; prompts: a prompt bank (JSON), empty for the project's own
    batch: examples in a micro-batch; max_seconds: longer clips are left out
    quantise_after: updates before the codebooks come into play
    commitment_weight, alignment_weight: of the losses beside the answers'
    cache_features: keep every clip's expert features in memory
    held_out_tasks, held_out_limit: asked of that many dev clips each at validation
    """

    READS = ("corpora", "text_model", "init", "prompts", "experts.source")

    corpora: Corpora
    text_model: Name
    text_precision: Literal["fp32", "bf16"] = "fp32"
    init: str = ""
    experts: Annotated[tuple[ExpertConfig, ...], Filled()] = (ExpertConfig("speech_text"), ExpertConfig("music"))
    descriptive: DescriptiveConfig = field(default_factory=DescriptiveConfig)
    lora: Lora = Lora()
    tasks: Weights = field(default_factory=lambda: dict(TASKS))
    prompts: str = ""
    batch: Size = 16
    max_seconds: Seconds = 30.0
    augmentation: Augmentation = Augmentation()
    quantise_after: Index = 0
    commitment_weight: NonNegative = 1.0
    alignment_weight: NonNegative = 0.0
    cache_features: bool = False
    held_out_tasks: tuple[Name, ...] = HELD_OUT
    held_out_limit: Count = 100

    def __post_init__(self) -> None:
        check_weights("tasks", self.tasks)


def run(recipe: DescriptiveRecipe, resume: Resume = False) -> Path:
    """Train, and return the folder of the branch, which DescriptiveEncoder.from_pretrained reads.

    Beside the branch lies audio_llm.safetensors: projection, adapters and auxiliary head,
    with which the language model starts (training/lm/initialisation.py).
    """
    with Run(recipe, resume) as run:
        clips = read_corpora(recipe.corpora)
        tokenizer = TextTokenizer.from_pretrained(recipe.text_model)
        start = resolve_model(recipe.init) if recipe.init else None
        config = DescriptiveEncoderConfig(recipe.experts, recipe.descriptive)
        encoder = trained_encoder(recipe, start) if start else DescriptiveEncoder(config)
        train, held_out = train_and_held_out(
            clips,
            recipe.tasks,
            recipe.held_out_tasks,
            encoder,
            PromptBank.load(recipe.prompts or None),
            recipe.batch,
            recipe.max_seconds,
            recipe.augmentation,
            recipe.cache_features,
            recipe.seed,
        )
        facts = {"clips": train.fingerprint, "text_tokenizer": tokenizer.fingerprint}
        if start:
            facts["init"] = fingerprint_of(start)
        run.check(facts)
        precision, align = PRECISION[recipe.text_precision], recipe.alignment_weight > 0
        if start:
            audio_llm, _, scale = load_listener(
                encoder.branch, start, recipe.text_model, tokenizer, precision, align, recipe.lora.dropout
            )
            audio_llm.train()
        else:
            audio_llm = AudioLLM(encoder.branch, recipe.text_model, tokenizer, recipe.lora, align, precision)
            scale = recipe.lora.alpha / recipe.lora.rank
        engine = Engine(audio_llm, recipe.optimiser, recipe.engine, recipe.steps, recipe.seed, run.engine_state())
        encoder.to(engine.device)
        usage = CodebookUsage(recipe.descriptive.quantiser.codebook_size, {"descriptive": range(8)})

        def write_model(folder: Path, state: dict[str, Tensor]) -> None:
            branch = {name.removeprefix("branch."): t for name, t in state.items() if name.startswith("branch.")}
            encoder.save_pretrained(folder, branch)
            rest = {n: t for n, t in state.items() if n in engine.trainable and not n.startswith("branch.")}
            save_listener(rest, scale, folder / LISTENER_FILE)

        for step in run.steps():
            quantise = step > recipe.quantise_after
            for index in engine.micro_batches(step):
                batch = train.batch(index)
                with plain_attention(engine.device):
                    out = engine(**batch.inputs(engine.device), quantise=quantise)
                loss = out.answer + recipe.commitment_weight * out.commitment + recipe.alignment_weight * out.alignment
                engine.backward(loss, names=[example.name for example in batch.examples])
                engine.record(loss=loss, answer=out.answer, commitment=out.commitment, alignment=out.alignment)
                if out.codes is not None:
                    usage.count(out.codes)
                run.metric_logger.count(audio_seconds=int(batch.frames.sum()) / 25)
            engine.step()
            if run.log_due(step):
                run.metric_logger.write(step, engine.metrics() | (usage.report() if quantise else {}))
            if run.validate_due(step):
                with engine.evaluating():
                    run.metric_logger.write(
                        step, held_out_scores(audio_llm, held_out, recipe.held_out_limit, quantise, engine.device)
                    )
            if run.save_due(step):
                run.save(step, {"model": engine}, write_model, facts)
    return run.model


def trained_encoder(recipe: DescriptiveRecipe, start: Path) -> DescriptiveEncoder:
    """The encoder that learns on. Raises UserError where it is not what the recipe describes."""
    encoder = DescriptiveEncoder.from_pretrained(start)
    if not encoder.branch.initialised:
        raise UserError(f"init: {start}: its codebooks hold no codes yet; train it for more than quantise_after steps")
    if recipe.quantise_after:
        raise UserError("quantise_after must be 0 with init: what learns on keeps its codes")
    if encoder.branch.config != recipe.descriptive or any(e not in recipe.experts for e in encoder.config.experts):
        raise UserError(
            f"init: {start} was trained with other experts or sizes than this recipe's; copy experts and descriptive "
            "from its config.json"
        )
    return encoder


def plain_attention(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """On the CPU, plain attention: in 16 bits a step with the fused kernel takes 1.6 times as long."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else contextlib.nullcontext()


def held_out_scores(
    audio_llm: AudioLLM, held_out: AudioQADataset, limit: int, quantise: bool, device: torch.device
) -> dict[str, Any]:
    """Word error rate of transcripts, share of right answers of every other task, on at most `limit` dev clips each."""
    scores = {}
    for task in held_out.clips_of:
        truth, said = [], []
        for batch in held_out.questions(task, limit):
            inputs = batch.inputs(device)
            dialogues = inputs.pop("dialogues")
            inputs.pop("transcripts")
            said += audio_llm.answer(**inputs, questions=[d.question for d in dialogues], quantise=quantise)
            truth += [d.answer for d in dialogues]
        if task == "asr":
            scores["held_out_wer"] = jiwer.wer(truth, said)
        else:
            scores[f"held_out_{task}"] = sum(t == s for t, s in zip(truth, said, strict=True)) / len(truth)
    return scores
