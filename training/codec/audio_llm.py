"""The audio LLM: descriptive branch, projection, and a frozen text model with LoRA that answers from what it hears.

Supervised training of the descriptive branch (ReasoningCodec, stage 1): the text model reads the quantised descriptive
frames in the place of the recording and must give the answer, so that the frames come to hold what words can say.
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
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from codec.io.errors import UserError
from codec.io.numbers import ProperShare, Width
from codec.io.shipped import located
from codec.io.tensor_files import save_tensors
from codec.reasoning.descriptive_branch import DescriptiveBranch, DescriptiveOutput
from lm.text_backbone import load_text_model
from lm.text_tokenizer import TextTokenizer
from training.codec.prompt_template import Dialogue

LISTENER_FILE = "audio_llm.safetensors"  # beside the branch that it listens through


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters on all linear layers of the text model (published: rank 32, alpha 32, dropout 0.1)."""

    rank: Width = 32
    alpha: Width = 32
    dropout: ProperShare = 0.1


@dataclass
class ListenerLosses:
    answer: Tensor  # mean cross-entropy of the answers' ids
    commitment: Tensor
    alignment: Tensor  # mean CTC loss per id of the transcripts, 0 without the auxiliary head
    codes: Tensor | None  # (B, T5, 8), -1 beyond each clip; None where quantisation was left out


class AudioLLM(nn.Module):
    """Answers questions about recordings.

    text_model: folder or hub id of a causal language model; frozen but for its adapters
    align: with an auxiliary head that reads the transcript off the 25 Hz states by CTC
    """

    def __init__(
        self,
        branch: DescriptiveBranch,
        text_model: str,
        tokenizer: TextTokenizer,
        lora: Lora,
        align: bool,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        model = load_text_model(text_model, precision)
        if tokenizer.size > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(tokenizer.size)  # tags that the tokenizer did not know; never used here
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

    def forward(
        self,
        speech: Tensor,
        music: Tensor,
        frames: Tensor,
        dialogues: Sequence[Dialogue],
        transcripts: Sequence[str],
        quantise: bool,
    ) -> ListenerLosses:
        """Losses of a batch of questions. Features as for DescriptiveBranch; transcripts: "" where there is none."""
        heard = self.branch(speech, music, frames, quantise)
        pieces = [dialogue.ids(self.tokenizer) for dialogue in dialogues]
        prompts = self.prompts(heard, pieces)
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
        wanted = targets != -100
        logits = text_model.get_output_embeddings()(states[wanted])  # the vocabulary at the answers alone
        answer = F.cross_entropy(logits.float(), targets[wanted])
        return ListenerLosses(answer, heard.commitment, self._alignment_loss(heard, transcripts), heard.codes)

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
        """The likeliest answers, word for word, of a batch of questions."""
        heard = self.branch(speech, music, frames, quantise)
        prompts = self.prompts(heard, [Dialogue(question, "").ids(self.tokenizer) for question in questions])
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
        self, heard: DescriptiveOutput, pieces: Sequence[tuple[list[int], list[int], list[int]]]
    ) -> list[Tensor]:
        """What comes before each answer: (rows, width) embeddings, the recording's frames in their place."""
        frames = self.projection(heard.quantised).to(self.text_model.dtype)  # (B, T5, width)
        counts = heard.mask.sum(1).tolist()
        return [
            torch.cat([self.embed(before), recording[:count], self.embed(between)])
            for recording, count, (before, between, _) in zip(frames, counts, pieces, strict=True)
        ]

    def embed(self, ids: list[int] | Tensor) -> Tensor:
        """Ids (n,) -> the text model's embeddings (n, width)."""
        table = self.text_model.get_input_embeddings()
        return table(torch.as_tensor(ids, dtype=torch.long, device=table.weight.device))

    def _alignment_loss(self, heard: DescriptiveOutput, transcripts: Sequence[str]) -> Tensor:
        rows = [row for row, text in enumerate(transcripts) if text]
        if self.alignment is None or not rows:
            return heard.commitment.new_zeros(())
        targets = [torch.tensor(self.tokenizer.encode(transcripts[row])) for row in rows]
        log_probs = self.alignment(heard.frame_states[rows]).float().log_softmax(-1).transpose(0, 1)  # (T25, b, ids)
        return F.ctc_loss(
            log_probs,
            torch.cat(targets).to(log_probs.device),
            heard.frame_mask[rows].sum(1),
            torch.tensor([len(target) for target in targets], device=log_probs.device),
            blank=self.tokenizer.size,
            zero_infinity=True,  # a transcript with more ids than the clip has frames says nothing about alignment
        )


def save_listener(state: Mapping[str, Tensor], lora_scale: float, path: Path) -> None:
    """Write an audio LLM's own tensors (projection, adapters, auxiliary head) where `AudioProjector.load` finds them.

    lora_scale: what the product of the low-rank matrices is multiplied with
    """
    save_tensors(state, path, lora_scale=str(lora_scale))


def read_listener(path: str | Path) -> tuple[dict[str, Tensor], float]:
    """An audio LLM's own tensors as saved, and the scale of its adapters. Raises UserError where the file is none."""
    try:
        with safe_open(located(path), "pt") as file:
            scale = float((file.metadata() or {})["lora_scale"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(
            f"{path}: no audio LLM can be read ({error}); name a run of kind descriptive, or the {LISTENER_FILE} of one"
        ) from error
    return state, scale


def load_listener(
    branch: DescriptiveBranch,
    folder: Path,
    text_model: str,
    tokenizer: TextTokenizer,
    precision: torch.dtype,
    align: bool = False,
    dropout: float = 0.0,
) -> tuple[AudioLLM, dict[str, Tensor], float]:
    """The audio LLM of a descriptive run as it was trained; its own tensors as saved; the scale of its adapters.

    folder: holds audio_llm.safetensors, branch is what was trained with it
    align: with an auxiliary head, the saved one or else a new one; without, a saved one is left aside
    dropout: of the adapters
    Raises UserError naming the file where it is missing, damaged, or belongs to another text model.
    """
    path = folder / LISTENER_FILE
    state, scale = read_listener(path)
    rank = next((len(tensor) for name, tensor in state.items() if ".lora_A." in name), None)
    if rank is None:
        raise UserError(f"{path}: no audio LLM can be read (it has no adapters); name a run of kind descriptive")
    lora = Lora(rank, round(scale * rank), dropout)
    audio_llm = AudioLLM(branch, text_model, tokenizer, lora, align, precision)
    own = {name: t for name, t in state.items() if align or not name.startswith("alignment.")}
    try:
        found = audio_llm.load_state_dict(own, strict=False)
    except RuntimeError as error:
        raise UserError(
            f"{path}: does not fit {text_model} ({' '.join(str(error).split())[:300]}); name the text model that the "
            "descriptive run was trained with"
        ) from error
    parameters = {name for name, p in audio_llm.named_parameters() if p.requires_grad}
    learns = {name for name in parameters if not name.startswith(("branch.", "alignment."))}
    if found.unexpected_keys or learns - own.keys():
        odd = sorted({*found.unexpected_keys, *(learns - own.keys())})
        raise UserError(
            f"{path}: does not fit {text_model} (such as {odd[0]}); name the text model that the descriptive run was "
            "trained with"
        )
    return audio_llm, state, scale


def fingerprint_of(folder: Path) -> str:
    """Hash of the weights in an audio LLM's folder: its own, and the model's beside them."""
    digest = hashlib.sha256()
    for name in ("model.safetensors", LISTENER_FILE):
        try:
            digest.update((folder / name).read_bytes())
        except OSError as error:
            raise UserError(
                f"{folder / name}: cannot be read ({error}); name a run of kind descriptive, or a folder with its "
                f"{LISTENER_FILE}"
            ) from error
    return digest.hexdigest()[:16]
