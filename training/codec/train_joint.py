"""Codec stage 4, joint fine-tuning of both branches (ReasoningCodec §2.5: after reconstruction, both learn together).

A whole codec goes on from where reconstruction left it, with the audio LLM that its descriptive branch was taught by.
Each micro-batch asks the audio LLM about whole clips and rebuilds crops of clips: a crop has lost part of what was
said. Loss = answers + commitment + weight * (flow + 0.1 phone features + 0.5 commitment), the two losses of stages 1
and 3.
Descriptive frames are no longer constants to reconstruction: its gradient reaches their branch through FiLM. The paper
names the stage only; that, the weights of the two losses, and that codebooks go on following the data are ours.
Expert encoders, text model and scalar autoencoder are frozen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.corpora.read import read_corpora
from codec.io.errors import UserError
from codec.io.numbers import Count, Name, NonNegative, Positive, Seconds
from codec.reasoning.codec import Features, ReasoningCodec
from codec.reasoning.descriptive_encoder import DescriptiveEncoder
from codec.tokenizer import load_tokenizer
from codec.tokens import SAMPLE_RATE
from lm.text_tokenizer import TextTokenizer
from training.codec import audio_crops, audio_qa
from training.codec.audio_llm import (
    LISTENER_FILE,
    AudioLLM,
    ListenerLosses,
    fingerprint_of,
    load_listener,
    save_listener,
)
from training.codec.feature_extractor import FeatureExtractor, FrozenFeatures
from training.codec.losses.codebook_usage import CodebookUsage
from training.codec.train_descriptive import HELD_OUT, PRECISION, TASKS, held_out_scores, plain_attention
from training.codec.train_structural import (
    GROUPS,
    Reconstruction,
    ReconstructionLosses,
    ReconstructionRecipe,
    draw_conditions,
    held_out_flow,
)
from training.engine.checkpoint import resolve_model
from training.engine.engine import Engine
from training.recipe import Weights, check_weights
from training.resume import Resume
from training.run import Run


@dataclass(frozen=True, kw_only=True)
class JointRecipe(ReconstructionRecipe):
    """What both branches learn from and how. Questions and crops come from the same corpora, `batch` clips of each.

    init: folder of the codec of a structural run
    audio_llm: folder with the audio_llm.safetensors that belongs to the codec's descriptive branch: the descriptive or
        GRPO run that the codec was made with, or init itself where a copy lies there
    text_model: the one that the audio LLM was trained with
    text_precision, tasks, prompts, max_seconds, augmentation, held_out_...: as in a descriptive recipe
    reconstruction_weight: of flow, phone and commitment loss together, beside the answers' loss
    descriptive_commitment_weight: of the descriptive branch; commitment_weight is the structural one's
    cache_features: keeps what the experts made of the clips of the questions, too
    """

    READS = ("corpora", "init", "audio_llm", "text_model", "prompts")

    init: Name
    audio_llm: Name
    text_model: Name
    text_precision: Literal["fp32", "bf16"] = "fp32"
    tasks: Weights = field(default_factory=lambda: dict(TASKS))
    prompts: str = ""
    max_seconds: Seconds = 30.0
    augmentation: audio_qa.Augmentation = audio_qa.Augmentation()
    reconstruction_weight: Positive = 1.0
    descriptive_commitment_weight: NonNegative = 1.0
    held_out_tasks: tuple[Name, ...] = HELD_OUT
    held_out_limit: Count = 100

    def __post_init__(self) -> None:
        check_weights("tasks", self.tasks)


@dataclass
class JointLosses:
    understood: ListenerLosses | None  # None where nothing was asked
    rebuilt: ReconstructionLosses
    codes: Tensor  # (B, T5, 8) descriptive ids of the crops, -1 beyond each


class Joint(nn.Module):
    """Audio LLM and reconstruction around one descriptive branch, which the audio LLM holds."""

    def __init__(self, audio_llm: AudioLLM, codec: ReasoningCodec) -> None:
        super().__init__()
        self.audio_llm, self.reconstruction = audio_llm, Reconstruction(codec)
        self._describe = codec.encode_descriptive  # through the audio LLM's branch; other parts stay

    def forward(
        self, questions: Mapping[str, Any] | None, heard: FrozenFeatures, prefix_frames: Tensor, conditioned: Tensor
    ) -> JointLosses:
        """questions: what Audio LLM.forward takes, None for reconstruction alone; the others as for Reconstruction."""
        understood = None if questions is None else self.audio_llm(**questions, quantise=True)
        features = Features(heard.features, heard.feature_frames, heard.structural_mask)
        with torch.autocast(heard.latents.device.type, enabled=False):  # as the codec will describe them
            descriptive, codes = self._describe(features)
        heard = replace(heard, descriptive=descriptive)
        return JointLosses(understood, self.reconstruction(heard, prefix_frames, conditioned), codes)


def run(recipe: JointRecipe, resume: Resume = False) -> Path:
    """Train, and return the folder of the whole codec, with its audio_llm.safetensors beside it."""
    with Run(recipe, resume) as run:
        tokenizer = TextTokenizer.from_pretrained(recipe.text_model)
        codec, start = trained_codec(recipe), resolve_model(recipe.audio_llm)
        crops, held_out_crops = audio_crops.train_and_held_out(
            recipe.corpora, recipe.batch, recipe.crop_seconds, recipe.seed
        )
        questions, held_out_questions = audio_qa.train_and_held_out(
            read_corpora(recipe.corpora),
            recipe.tasks,
            recipe.held_out_tasks,
            DescriptiveEncoder.from_codec(codec),
            PromptBank.load(recipe.prompts or None),
            recipe.batch,
            recipe.max_seconds,
            recipe.augmentation,
            recipe.cache_features,
            recipe.seed,
        )
        facts = {
            "clips": crops.fingerprint,
            "text_tokenizer": tokenizer.fingerprint,
            "init": codec.fingerprint,
            "audio_llm": fingerprint_of(start),
        }
        run.check(facts)
        audio_llm, supervised, scale = load_listener(
            codec.descriptive, start, recipe.text_model, tokenizer, PRECISION[recipe.text_precision]
        )
        check_branch(codec, start)
        model = Joint(audio_llm, codec)
        engine = Engine(model, recipe.optimiser, recipe.engine, recipe.steps, recipe.seed, run.engine_state())
        codec.to(engine.device).eval()  # what is frozen stays so; what learns gets its mode back below
        model.train()
        frozen = FeatureExtractor(codec, recipe.cache_features, describe=False)
        described = CodebookUsage(codec.config.descriptive.quantiser.codebook_size, {"descriptive": range(8)})
        structured = CodebookUsage(codec.config.structural.quantiser.codebook_size, GROUPS)

        def write_model(folder: Path, state: dict[str, Tensor]) -> None:
            learnt = {name.removeprefix("audio_llm."): tensor for name, tensor in state.items()}
            codec.save_pretrained(folder, codec_state(state))
            save_listener({name: learnt.get(name, t) for name, t in supervised.items()}, scale, folder / LISTENER_FILE)

        for step in run.steps():
            for index in engine.micro_batches(step):
                asked, cut = questions.batch(index), crops.batch(index)
                heard = frozen(cut, engine.device)
                with plain_attention(engine.device):
                    out = engine(asked.inputs(engine.device), heard, **draw_conditions(heard.latent_frames, recipe))
                understood, rebuilt = out.understood, out.rebuilt
                loss = understood.answer + recipe.descriptive_commitment_weight * understood.commitment
                loss = loss + recipe.reconstruction_weight * rebuilt.total(recipe)
                engine.backward(loss, names=[e.name for e in asked.examples] + [crop.clip.id for crop in cut])
                engine.record(loss=loss, answer=understood.answer, descriptive_commitment=understood.commitment)
                engine.record(flow=rebuilt.flow, phone=rebuilt.phone, commitment=rebuilt.commitment)
                described.count(out.codes)
                structured.count(rebuilt.ids)
                run.metric_logger.count(
                    audio_seconds=sum(c.length for c in cut) / SAMPLE_RATE + int(asked.frames.sum()) / 25
                )
            engine.step()
            if run.log_due(step):
                run.metric_logger.write(step, engine.metrics() | described.report() | structured.report())
            if run.validate_due(step):
                with engine.evaluating():
                    scores = held_out_scores(audio_llm, held_out_questions, recipe.held_out_limit, True, engine.device)
                    flow = held_out_flow(
                        lambda *heard, **conditions: engine(None, *heard, **conditions).rebuilt,
                        frozen,
                        held_out_crops,
                        recipe,
                        engine.device,
                    )
                    run.metric_logger.write(step, scores | {"held_out_flow": flow})
            if run.save_due(step):
                run.save(step, {"model": engine}, write_model, facts)
    return run.model


def trained_codec(recipe: JointRecipe) -> ReasoningCodec:
    """The codec to start from: experts and scalar autoencoder frozen, both branches and the flow decoder not."""
    codec = load_tokenizer(resolve_model(recipe.init))
    if not isinstance(codec, ReasoningCodec):
        raise UserError(f"{recipe.init}: a {codec.tokenizer_type} has no two branches; use a ReasoningCodec")
    if codec.config.decode_guidance == 1:
        raise UserError(
            f"{recipe.init}: its decoder is distilled, which the flow loss would undo; start from the codec before "
            "that and distil what joint fine-tuning makes of it"
        )
    for part in (codec.experts, codec.scalar):
        part.requires_grad_(False)
    return codec


def codec_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What of Joint's state is the codec's, under its names there."""
    places = {"audio_llm.branch.": "descriptive.", "reconstruction.": ""}
    return {
        place + name.removeprefix(prefix): tensor
        for prefix, place in places.items()
        for name, tensor in state.items()
        if name.startswith(prefix)
    }


def check_branch(codec: ReasoningCodec, folder: Path) -> None:
    """Raise UserError where the audio LLM's folder holds another descriptive branch than the codec."""
    path = folder / "model.safetensors"
    try:
        theirs = {name.removeprefix("descriptive."): tensor for name, tensor in load_file(path).items()}
    except SafetensorError as error:
        raise UserError(f"{path}: damaged or not a safetensors file ({error}); copy it again") from error
    for name, tensor in codec.descriptive.state_dict().items():
        if name not in theirs or not torch.equal(theirs[name], tensor.cpu()):
            raise UserError(
                f"{path}: its descriptive branch is not the codec's (they differ in {name}); name the descriptive or "
                "GRPO run that the codec was made with"
            )
