"""The audio LLM: descriptive branch, projection, and a frozen text model with LoRA that answers from their output.

Supervised training of the descriptive branch (ReasoningCodec, stage 1): the text model reads the quantised descriptive
frames in the place of the recording, and the loss is of its answer, so that the frames come to hold what text can
express.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from codec.io.errors import UserError
from codec.reasoning.descriptive_branch import DescriptiveBranch, DescriptiveOutput
from lm.text_backbone import load_text_model
from lm.text_tokenizer import TextTokenizer
from training.codec.losses.label_heads import LabelHeads
from training.lm.audio_projector import AUDIO_LLM_FILE, find_audio_llm, read_audio_llm
from training.lm.lora import LoraRecipe
from training.lm.prompt_template import Dialogue


@dataclass
class AudioLLMLosses:
    """Losses of a batch of questions, scalars."""

    # mean cross-entropy of the answers' text tokens
    answer: Tensor
    # of the descriptive branch's quantiser
    commitment: Tensor
    # mean CTC loss per text token of the transcripts, 0 without the auxiliary head
    alignment: Tensor
    # mean cross-entropy of the clips' labels, 0 without heads for them
    labels: Tensor
    # (B, T5, 8) descriptive ids, -1 beyond each clip; None where quantisation was left out
    codes: Tensor | None


class AudioLLM(nn.Module):
    """Answers questions about recordings.

    Args:
        branch: of the codec; trained with the adapters and the projection.
        text_model: folder or hub id of a causal language model; frozen but for its adapters.
        tokenizer: the text model's.
        lora: of the adapters on all linear layers of the text model.
        align: with an auxiliary head that reads the transcript off the 25 Hz states by CTC.
        precision: of the text model's frozen weights.
        labels: label -> its values, of which auxiliary heads are made; see LabelHeads.
    """

    def __init__(
        self,
        branch: DescriptiveBranch,
        text_model: str,
        tokenizer: TextTokenizer,
        lora: LoraRecipe,
        align: bool,
        precision: torch.dtype = torch.float32,
        labels: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        model = load_text_model(text_model, precision)
        if tokenizer.size > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(tokenizer.size)  # tags that were added to the tokenizer; never used here
        model.config.use_cache = False
        adapters = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        self.branch = branch
        with warnings.catch_warnings():  # peft asks by a name that transformers has deprecated
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            self.text_model = get_peft_model(model, adapters)  # freezes the rest
        self.tokenizer = tokenizer
        self.projection = nn.Linear(branch.config.dim, model.config.hidden_size)
        self.alignment = nn.Linear(branch.config.dim, tokenizer.size + 1) if align else None  # the last id is the blank
        self.label_heads = LabelHeads(branch.config.dim, labels) if labels else None

    def forward(
        self,
        speech: Tensor,
        music: Tensor,
        frames: Tensor,
        dialogues: Sequence[Dialogue],
        transcripts: Sequence[str],
        labels: Sequence[Mapping[str, str]],
        quantise: bool,
    ) -> AudioLLMLosses:
        """Losses of a batch of B questions.

        Args:
            speech: (B, C, T50) expert features, as for DescriptiveBranch.
            music: (B, C, T25).
            frames: (B,) 25 Hz frames of each recording.
            dialogues: question and answer about each recording.
            transcripts: of each recording, "" where there is none.
            labels: of each recording, as far as they are known.
            quantise: whether the text model reads quantised frames.
        """
        described = self.branch(speech, music, frames, quantise)
        pieces = [dialogue.ids(self.tokenizer) for dialogue in dialogues]
        prompts = self.prompts(described, pieces)
        answers = [torch.tensor(answer, device=speech.device) for _, _, answer in pieces]
        sequences = [torch.cat([p, self.embed(a[:-1])]) for p, a in zip(prompts, answers, strict=True)]
        # An answer's first id is predicted at the last position of the prompt.
        targets = [
            torch.cat([answer.new_full((len(prompt) - 1,), -100), answer])
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        # Padding on the right needs no mask: attention looks back only.
        targets = pad_sequence(targets, batch_first=True, padding_value=-100)
        text_model = self.text_model.get_base_model()
        states = text_model.base_model(inputs_embeds=pad_sequence(sequences, batch_first=True)).last_hidden_state
        is_target = targets != -100
        logits = text_model.get_output_embeddings()(states[is_target])  # the vocabulary at the answers alone
        answer = F.cross_entropy(logits.float(), targets[is_target])
        return AudioLLMLosses(
            answer,
            described.commitment,
            self._alignment_loss(described, transcripts),
            self._label_loss(described, labels),
            described.codes,
        )

    @torch.no_grad()
    def answer(
        self,
        speech: Tensor,
        music: Tensor,
        frames: Tensor,
        questions: Sequence[str],
        quantise: bool = True,
        max_new_tokens: int = 48,
    ) -> list[str]:
        """The likeliest answers to a batch of questions, greedily decoded. Features as for `forward`."""
        described = self.branch(speech, music, frames, quantise)
        prompts = self.prompts(described, [Dialogue(question, "").ids(self.tokenizer) for question in questions])
        most = max(len(prompt) for prompt in prompts)
        embeddings = torch.stack([F.pad(prompt, (0, 0, most - len(prompt), 0)) for prompt in prompts])
        mask = torch.tensor([[0] * (most - len(p)) + [1] * len(p) for p in prompts], device=embeddings.device)
        ids = self.text_model.generate(
            inputs_embeds=embeddings,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=self.tokenizer.eos,
            pad_token_id=self.tokenizer.eos,
        )
        return [self.tokenizer.decode(row).strip() for row in ids.tolist()]

    def prompts(
        self, described: DescriptiveOutput, pieces: Sequence[tuple[list[int], list[int], list[int]]]
    ) -> list[Tensor]:
        """What precedes each answer: (rows, width) embeddings, the recording's frames in their place.

        Args:
            described: of B recordings.
            pieces: of B dialogues, as `Dialogue.ids` gives them.
        """
        frames = self.projection(described.quantised).to(self.text_model.dtype)  # (B, T5, width)
        counts = described.mask.sum(1).tolist()
        return [
            torch.cat([self.embed(before), recording[:count], self.embed(between)])
            for recording, count, (before, between, _) in zip(frames, counts, pieces, strict=True)
        ]

    def embed(self, ids: list[int] | Tensor) -> Tensor:
        """Ids (n,) -> the text model's embeddings (n, width)."""
        table = self.text_model.get_input_embeddings()
        return table(torch.as_tensor(ids, dtype=torch.long, device=table.weight.device))

    def _label_loss(self, described: DescriptiveOutput, labels: Sequence[Mapping[str, str]]) -> Tensor:
        if self.label_heads is None:
            return described.commitment.new_zeros(())
        return self.label_heads(described.quantised, described.mask, labels)

    def _alignment_loss(self, described: DescriptiveOutput, transcripts: Sequence[str]) -> Tensor:
        rows = [row for row, text in enumerate(transcripts) if text]
        if self.alignment is None or not rows:
            return described.commitment.new_zeros(())
        targets = [torch.tensor(self.tokenizer.encode(transcripts[row])) for row in rows]
        log_probs = (
            self.alignment(described.frame_states[rows]).float().log_softmax(-1).transpose(0, 1)
        )  # (T25, b, ids)
        return F.ctc_loss(
            log_probs,
            torch.cat(targets).to(log_probs.device),
            described.frame_mask[rows].sum(1),
            torch.tensor([len(target) for target in targets], device=log_probs.device),
            blank=self.tokenizer.size,
            zero_infinity=True,  # a transcript with more tokens than the clip has frames cannot be aligned
        )


def load_audio_llm(
    branch: DescriptiveBranch,
    folder: Path,
    text_model: str,
    tokenizer: TextTokenizer,
    precision: torch.dtype,
    align: bool = False,
    dropout: float = 0.0,
    labels: Mapping[str, Sequence[str]] | None = None,
) -> tuple[AudioLLM, dict[str, Tensor], float]:
    """The audio LLM of a descriptive run as it was trained; its own tensors as saved; the scale of its adapters.

    Args:
        branch: what was trained with it.
        folder: holds audio_llm.safetensors.
        text_model: the one that it was trained with, by folder or hub id.
        tokenizer: the text model's.
        precision: of the text model's frozen weights.
        align: with an auxiliary head, the saved one or else a new one; without, a saved one is ignored.
        dropout: of the adapters.
        labels: of auxiliary heads, which are always new.

    Raises:
        UserError: the file is missing, damaged, or belongs to another text model.
    """
    path = folder / AUDIO_LLM_FILE
    state, scale = read_audio_llm(path)
    rank = next((len(tensor) for name, tensor in state.items() if ".lora_A." in name), None)
    if rank is None:
        raise UserError(f"{path}: no audio LLM can be read (it has no adapters); name a run of kind descriptive")
    lora = LoraRecipe(rank=rank, alpha=round(scale * rank, 6), dropout=dropout)  # rounded: the scale was a quotient
    audio_llm = AudioLLM(branch, text_model, tokenizer, lora, align, precision, labels)
    own = {name: t for name, t in state.items() if align or not name.startswith("alignment.")}
    try:
        loaded = audio_llm.load_state_dict(own, strict=False)
    except RuntimeError as error:
        raise UserError(
            f"{path}: does not fit {text_model} ({' '.join(str(error).split())[:300]}); name the text model that the "
            "descriptive run was trained with"
        ) from error
    parameters = {name for name, p in audio_llm.named_parameters() if p.requires_grad}
    required = {name for name in parameters if not name.startswith(("branch.", "alignment.", "label_heads."))}
    if loaded.unexpected_keys or required - own.keys():
        odd = sorted({*loaded.unexpected_keys, *(required - own.keys())})
        raise UserError(
            f"{path}: does not fit {text_model} (such as {odd[0]}); name the text model that the descriptive run was "
            "trained with"
        )
    return audio_llm, state, scale


def fingerprint_of(folder: Path) -> str:
    """Hash of the weights in an audio LLM's folder: its own, and the model's beside them.

    Raises:
        UserError: one of the files is missing.
    """
    digest = hashlib.sha256()
    for name in ("model.safetensors", AUDIO_LLM_FILE):
        try:
            digest.update(find_audio_llm(folder / name).read_bytes())
        except OSError as error:
            raise UserError(
                f"{folder / name}: cannot be read ({error}); name a run of kind descriptive, or a folder with its "
                f"{AUDIO_LLM_FILE}"
            ) from error
    return digest.hexdigest()[:16]
