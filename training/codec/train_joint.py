"""Codec stage 4, joint fine-tuning of both branches (ReasoningCodec §2.5: after reconstruction, both together).

Training of a whole codec continues, with the audio LLM that its descriptive branch was supervised by. Each micro-batch
has questions about whole clips and crops to reconstruct: a crop has lost part of what was spoken in it.
Loss = answers + commitment + weight * (flow + 0.1 phone features + 0.5 commitment), the two losses of stages 1 and 3.
Descriptive frames are no longer constants to reconstruction: its gradient reaches their branch through FiLM. The paper
names the stage only; that, the weights of the two losses, and that codebooks keep following the data are ours.
Expert encoders, text model and scalar autoencoder are frozen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from auditory_sentences.corpora.read import read_corpora
from codec.io.errors import UserError
from codec.io.numbers import Name, NonNegative, Positive
from codec.reasoning.codec import Features, ReasoningCodec
from codec.reasoning.descriptive_encoder import DescriptiveEncoder
from codec.reasoning.load import load_reasoning_codec
from codec.tokens import SAMPLE_RATE
from lm.text_tokenizer import TextTokenizer
from training.codec.audio_llm import AudioLLM, AudioLLMLosses, fingerprint_of, load_audio_llm
from training.codec.audio_qa import AudioQADataset
from training.codec.feature_extractor import FeatureExtractor, FrozenFeatures
from training.codec.losses.codebook_usage import CodebookUsage
from training.codec.losses.weighted_sum import weighted_sum
from training.codec.supervision import SupervisionRecipe, held_out_scores
from training.codec.train_structural import (
    GROUPS,
    Reconstruction,
    ReconstructionLosses,
    ReconstructionRecipe,
    check_shares,
    draw_conditions,
    flow_metric,
    held_out_flow,
)
from training.engine.attention import plain_attention
from training.engine.checkpoint import resolve_model
from training.engine.engine import Engine
from training.lm.audio_projector import AUDIO_LLM_FILE, save_audio_llm
from training.resume import Resume
from training.run import Run


@dataclass(frozen=True, kw_only=True)
class JointRecipe(ReconstructionRecipe, SupervisionRecipe):
    """Joint fine-tuning: questions and crops come from the same corpora, `batch` clips of each in a micro-batch."""

    READS = ("corpora", "init", "audio_llm", "text_model", "prompts")

    # folder of the codec of a structural run
    init: Name
    # folder with the audio_llm.safetensors of the codec's descriptive branch: the run it was made with, or init itself
    audio_llm: Name
    # weight of flow, phone and commitment loss together, beside the answers' loss
    reconstruction_weight: Positive = 1.0
    # weight of the descriptive branch's commitment loss; commitment_weight is the structural branch's
    descriptive_commitment_weight: NonNegative = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(self)


@dataclass
class JointLosses:
    """Losses of a micro-batch."""

    # of the questions; None where there were none
    questions: AudioLLMLosses | None
    # of the crops
    reconstruction: ReconstructionLosses
    # (B, T5, 8) descriptive ids of the crops, -1 beyond each
    codes: Tensor


class Joint(nn.Module):
    """Audio LLM and reconstruction around one descriptive branch, which the audio LLM holds."""

    def __init__(self, audio_llm: AudioLLM, codec: ReasoningCodec, phone_units: bool) -> None:
        super().__init__()
        self.audio_llm, self.reconstruction = audio_llm, Reconstruction(codec, phone_units)
        # The bound method, not the module: of the codec only the branch is trained here, and that is the audio LLM's.
        self._encode_descriptive = codec.encode_descriptive

    def forward(
        self, questions: Mapping[str, Any] | None, features: FrozenFeatures, **conditions: Tensor
    ) -> JointLosses:
        """questions: arguments of AudioLLM.forward, None for reconstruction alone; the others as for Reconstruction."""
        answered = None if questions is None else self.audio_llm(**questions, quantise=True)
        with torch.autocast(features.latents.device.type, enabled=False):  # as the finished codec will
            descriptive, codes = self._encode_descriptive(
                Features(features.experts, features.feature_frames, features.structural_mask)
            )
        features = replace(features, descriptive=descriptive)
        return JointLosses(answered, self.reconstruction(features, **conditions), codes)


def run(recipe: JointRecipe, resume: Resume = False) -> Path:
    """Train, and return the folder of the whole codec, with its audio_llm.safetensors beside it."""
    with Run(recipe, resume) as run:
        tokenizer = TextTokenizer.from_pretrained(recipe.text_model)
        codec, start = trained_codec(recipe), resolve_model(recipe.audio_llm)
        crops, held_out_crops = recipe.crops()
        questions, held_out_questions = AudioQADataset.train_and_dev(
            read_corpora(recipe.corpora),
            recipe.tasks,
            recipe.held_out_tasks,
            DescriptiveEncoder.from_codec(codec),
            recipe.questions(recipe.augmentation),
            recipe.seed,
        )
        facts = {
            "clips": crops.fingerprint,
            "text_tokenizer": tokenizer.fingerprint,
            "init": codec.fingerprint,
            "audio_llm": fingerprint_of(start),
        }
        run.check(facts)
        audio_llm, supervised, scale = load_audio_llm(
            codec.descriptive, start, recipe.text_model, tokenizer, recipe.text_dtype
        )
        check_branch(codec, start)
        model = Joint(audio_llm, codec, recipe.phone_units)
        engine = Engine(model, recipe.optimiser, recipe.engine, recipe.steps, recipe.seed, run.engine_state())
        codec.to(engine.device).eval()  # the trained parts get their mode back below
        model.reconstruction.metric = flow_metric(codec, crops, recipe)
        model.train()
        frozen = FeatureExtractor(codec, recipe.cache_features, descriptive=False)
        descriptive_usage = CodebookUsage(codec.config.descriptive.quantiser.codebook_size, {"descriptive": range(8)})
        structural_usage = CodebookUsage(codec.config.structural.quantiser.codebook_size, GROUPS)
        weights = {
            "answer": 1.0,
            "descriptive_commitment": recipe.descriptive_commitment_weight,
            "reconstruction": recipe.reconstruction_weight,
        }
        write = partial(write_model, codec, supervised, scale)

        for step in run.steps():
            for index in engine.micro_batches(step):
                batch, batch_crops = questions.batch(index), crops.batch(index)
                features = frozen(batch_crops, engine.device)
                conditions = draw_conditions(features.latent_frames, recipe)
                with plain_attention(engine.device):
                    out = engine(batch.inputs(engine.device), features, **conditions)
                losses = {"answer": out.questions.answer, "descriptive_commitment": out.questions.commitment}
                losses["reconstruction"] = out.reconstruction.total(recipe)
                loss = weighted_sum(losses, weights)
                engine.backward(loss, names=batch.names + [crop.clip.id for crop in batch_crops])
                engine.record(loss=loss, **losses, **out.reconstruction.losses)
                descriptive_usage.count(out.codes)
                structural_usage.count(out.reconstruction.ids)
                crop_seconds = sum(crop.length for crop in batch_crops) / SAMPLE_RATE
                run.metric_logger.count(audio_seconds=crop_seconds + batch.seconds)
            engine.step()
            if run.log_due(step):
                run.metric_logger.write(step, engine.metrics() | descriptive_usage.report() | structural_usage.report())
            if run.validate_due(step):
                with engine.evaluating():
                    scores = held_out_scores(audio_llm, held_out_questions, recipe.held_out_limit, True, engine.device)
                    rebuild = partial(reconstruct, engine)
                    flow = held_out_flow(rebuild, frozen, held_out_crops, recipe, engine.device)
                run.metric_logger.write(step, scores | {"val/flow": flow})
            if run.save_due(step):
                run.save(step, {"model": engine}, write, facts)
    return run.model


def reconstruct(engine: Engine, features: FrozenFeatures, **conditions: Tensor) -> ReconstructionLosses:
    """Losses of reconstruction alone; arguments as for Reconstruction.forward."""
    return engine(None, features, **conditions).reconstruction


def write_model(
    codec: ReasoningCodec, supervised: Mapping[str, Tensor], scale: float, folder: Path, state: Mapping[str, Tensor]
) -> None:
    """Fill a model folder from Joint's state: the codec, and the audio LLM's own tensors beside it.

    What of `supervised` was not trained is passed on as it was.
    """
    codec.save_pretrained(folder, codec_state(state))
    own = {name: state.get(f"audio_llm.{name}", tensor) for name, tensor in supervised.items()}
    save_audio_llm(own, scale, folder / AUDIO_LLM_FILE)


def trained_codec(recipe: JointRecipe) -> ReasoningCodec:
    """The codec to start from: experts and scalar autoencoder frozen, both branches and the flow decoder not.

    Raises:
        UserError: init names none, or one whose decoder is distilled.
    """
    codec = load_reasoning_codec(resolve_model(recipe.init))
    if codec.config.distilled:
        raise UserError(
            f"{recipe.init}: its decoder is distilled, which the flow loss would undo; start from the codec before "
            "that and distil what joint fine-tuning makes of it"
        )
    for part in (codec.experts, codec.scalar):
        part.requires_grad_(False)
    return codec


def codec_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The codec's part of Joint's state, under its names there."""
    prefixes = {"audio_llm.branch.": "descriptive.", "reconstruction.": ""}
    return {
        codec_prefix + name.removeprefix(prefix): tensor
        for prefix, codec_prefix in prefixes.items()
        for name, tensor in state.items()
        if name.startswith(prefix)
    }


def check_branch(codec: ReasoningCodec, folder: Path) -> None:
    """Compare the codec's descriptive branch with that in the audio LLM's folder.

    Raises:
        UserError: they differ, or the folder's weights cannot be read.
    """
    path = folder / "model.safetensors"
    try:
        source = {name.removeprefix("descriptive."): tensor for name, tensor in load_file(path).items()}
    except SafetensorError as error:
        raise UserError(f"{path}: damaged or not a safetensors file ({error}); copy it again") from error
    for name, tensor in codec.descriptive.state_dict().items():
        if name not in source or not torch.equal(source[name], tensor.cpu()):
            raise UserError(
                f"{path}: its descriptive branch is not the codec's (they differ in {name}); name the descriptive or "
                "GRPO run that the codec was made with"
            )
