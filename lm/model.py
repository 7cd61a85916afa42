"""The unified audio language model: understanding, cross-modal and generation layers, and the depth decoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, GenerationConfig, PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import create_causal_mask
from transformers.utils import GENERATION_CONFIG_NAME
from transformers.utils.generic import ModelOutput

from codec.io.errors import UserError
from codec.io.third_party import third_party_errors
from codec.pretrained import CONFIG_FILE, WEIGHTS_FILE, require_fit, saved_folder
from codec.tensor_files import Stored, share_weights
from lm.config import UniAudioConfig
from lm.depth_decoder import DepthDecoder
from lm.generation.int8 import Int8Heads
from lm.generation.mixin import UniAudioGenerationMixin
from lm.lean_layers import LEAN
from lm.losses import LossCounts, LossSettings, cross_entropy, select_targets
from lm.model_folder import check_adapter, check_config, require_finite_model, stored_shards
from lm.packed_attention import PackedSentences


@dataclass
class UniAudioOutput(ModelOutput):
    """What `UniAudioForConditionalGeneration.forward` returns.

    With loss weights: the losses; everything but `loss` is detached. Without: the logits.
    """

    # weighted sum of the two below
    loss: Tensor | None = None
    # cross-entropy, in nats
    text_loss: Tensor | None = None
    # stream-weighted sum of the losses of the codebooks
    audio_loss: Tensor | None = None
    # (C,), of each codebook, unweighted
    per_stream_loss: Tensor | None = None
    # of the weighted text targets
    text_accuracy: Tensor | None = None
    # (C,), of the weighted audio targets
    per_stream_accuracy: Tensor | None = None
    # what the text loss was divided by
    text_count: Tensor | None = None
    # what the audio losses were divided by
    audio_count: Tensor | None = None
    # (B, S, text ids)
    text_logits: Tensor | None = None
    # (N, C, audio ids), rows whose target is audio, row-major over (batch, time)
    audio_logits: Tensor | None = None


class UniAudioForConditionalGeneration(UniAudioGenerationMixin, PreTrainedModel):
    """UniAudio 2.0's language model over rows of C audio columns, eight in the paper, and one text column (§4.2).

    Audio rows pass through the understanding layers, all rows through the cross-modal layers, audio rows again through
    the generation layers. Text ids are read off the final vector of a row by `lm_head`, audio frames by the depth
    decoder and `audio_head`. Every group is a plain model of the transformers library, fed with vectors.
    """

    config: UniAudioConfig
    config_class = UniAudioConfig
    base_model_prefix = ""
    main_input_name = "ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _tied_weights_keys = {"lm_head.weight": "cross_modal.embed_tokens.weight"}

    audio_head: Tensor | Int8Heads  # (C, d_depth, V)
    codebook_offsets: Tensor  # (C,)

    def __init__(self, config: UniAudioConfig):
        super().__init__(config)
        self.generation_config = GenerationConfig()  # one made of the model's configuration would drop our fields
        layout, width = config.layout, config.cross_modal.hidden_size
        self.understanding = AutoModel.from_config(config.group(config.understanding_layers))
        self.cross_modal = AutoModel.from_config(config.cross_modal)
        self.generation = AutoModel.from_config(config.group(config.generation_layers))
        self.understanding.embed_tokens = self.generation.embed_tokens = None  # they are only ever given vectors
        self.lm_head = nn.Linear(width, config.cross_modal.vocab_size, bias=False)
        self.audio_embeddings = nn.Embedding(layout.audio_size * layout.num_codebooks, width)
        self.depth_decoder = DepthDecoder(config.depth, width)
        self.audio_head = nn.Parameter(torch.empty(layout.num_codebooks, config.depth.hidden_size, layout.audio_size))
        offsets = torch.arange(layout.num_codebooks) * layout.audio_size
        self.register_buffer("codebook_offsets", offsets, persistent=False)
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As the library's; `device_map` may choose the device, but not spread the model over several.

        Raises:
            UserError: It spreads the model, or the folder's files are damaged, unfit or do not belong together.
        """
        source = args[0] if args else kwargs.get("pretrained_model_name_or_path")
        folder = Path(source) if source is not None and Path(source).is_dir() else None
        files = {}
        if folder is not None:
            check_adapter(folder)
            check_config(folder)
            files = stored_shards(folder)
            cls._require_fit(folder, {name: stored for name, (_, stored) in files.items()})
        with third_party_errors(source or "model", "the language model cannot be read", "copy it again"):
            loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # output_loading_info gives two
        places = {str(place) for place in getattr(model, "hf_device_map", {}).values()}
        if len(places) > 1:
            raise UserError(
                f"device_map spreads the model over {' and '.join(sorted(places))}, but its parts read each other's "
                "weights; name one device that holds all of it, such as device_map='cuda:0'"
            )
        if folder is not None:
            require_finite_model(model, files, folder)
            if (folder / GENERATION_CONFIG_NAME).is_file():  # the library reads it for models of its own mixin alone
                with third_party_errors(folder / GENERATION_CONFIG_NAME, "cannot be read", "copy the model again"):
                    model.generation_config = GenerationConfig.from_pretrained(folder)
        return loaded

    @classmethod
    def _require_fit(cls, folder: Path, stored: dict[str, Stored]) -> None:
        """Raise UserError where the weights are not those that config.json means; nothing of that size is built yet."""
        with third_party_errors(folder / CONFIG_FILE, "describes no model that can be built", "copy the model again"):
            config = UniAudioConfig.from_pretrained(folder)
            with torch.device("meta"):
                wanted = cls(config).state_dict()
        if config.tie_word_embeddings:
            tied = set(cls._tied_weights_keys) - set(stored)
            wanted = {name: tensor for name, tensor in wanted.items() if name not in tied}
        require_fit(wanted, stored, folder / WEIGHTS_FILE, "copy the model again")

    def save_pretrained(  # type: ignore[override]  # what is not named here is passed on
        self, save_directory: str | Path, is_main_process: bool = True, **kwargs: Any
    ) -> None:
        """As transformers does it, all files or none, and such that others can read them."""
        if not is_main_process or kwargs.get("push_to_hub"):
            super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
            return
        with saved_folder(save_directory) as scratch:
            super().save_pretrained(scratch, **kwargs)
            share_weights(scratch)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self and isinstance(self.audio_head, Tensor):
            init.normal_(self.audio_head, std=self.config.initializer_range)
            offsets = torch.arange(len(self.codebook_offsets)) * self.audio_head.shape[-1]
            init.copy_(self.codebook_offsets, offsets)

    def _check_and_adjust_attn_implementation(self, attn_implementation: str | None, *args: Any, **kwargs: Any) -> str:
        try:
            return super()._check_and_adjust_attn_implementation(attn_implementation, *args, **kwargs)
        except ImportError as error:
            raise UserError(
                f"attn_implementation {attn_implementation} cannot be used here ({str(error).rstrip('.')}); install it "
                "(flash_attention_2: pip install 'uniaudio[flash]'), or choose sdpa, which gives the same numbers"
            ) from error

    def get_input_embeddings(self) -> nn.Module:
        """The text embeddings."""
        return self.cross_modal.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the text embeddings."""
        self.cross_modal.embed_tokens = value

    def get_output_embeddings(self) -> nn.Module:
        """The text head."""
        return self.lm_head

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Replace the text head."""
        self.lm_head = value

    def named_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Every parameter once, as (name, parameter), under the part of the model it belongs to: what stages freeze.

        understanding, cross_modal (with text embeddings and head), generation, depth (with projection),
        audio_embeddings, audio_head.
        """
        group_of = {"lm_head": "cross_modal", "depth_decoder": "depth"}
        names = ("understanding", "cross_modal", "generation", "depth", "audio_embeddings", "audio_head")
        groups: dict[str, list[tuple[str, nn.Parameter]]] = {name: [] for name in names}
        for name, parameter in self.named_parameters():
            first = name.split(".", 1)[0]
            groups[group_of.get(first, first)].append((name, parameter))
        return groups

    # --- the steps of the forward pass, in the order of published model §A.3 ---

    def embed_frames(self, frames: Tensor) -> Tensor:
        """Audio row ids (..., C) -> sum of their embeddings (..., d), with no (..., C, d) in between."""
        indices = (frames + self.codebook_offsets).flatten(0, -2)  # (N, C)
        summed = F.embedding_bag(indices, self.audio_embeddings.weight, mode="sum")
        return summed.view(*frames.shape[:-1], summed.shape[-1])

    def embed_codebooks(self, ids: Tensor) -> Tensor:
        """Ids of codebooks 0..k-1 (..., k) -> their embeddings (..., k, d)."""
        return self.audio_embeddings(ids + self.codebook_offsets[: ids.shape[-1]])

    def last_hidden_state(self, ids: Tensor, mask: Tensor, position_ids: Tensor | None = None) -> Tensor:
        """Steps 1 to 6: the final vector of every row, (B, S, d).

        Args:
            ids: (B, S, columns) of the rows.
            mask: (B, S, columns) bool, which columns are active.
            position_ids: (B, S). Sentences packed in one sequence are told apart by positions that restart; none
                attends to another. None: each entry is one sentence.
        """
        is_audio, is_text = mask[..., 0], mask[..., -1]  # (B, S)
        audio_gate, text_gate = is_audio[..., None], is_text[..., None]
        if position_ids is None:
            position_ids = torch.arange(ids.shape[1], device=ids.device)[None]
        width, dtype = self.config.cross_modal.hidden_size, self.audio_embeddings.weight.dtype

        audio = torch.zeros(*ids.shape[:2], width, dtype=dtype, device=ids.device)
        audio = audio.masked_scatter(audio_gate, self.embed_frames(ids[..., :-1][is_audio]))  # (B, S, d)
        text = self.cross_modal.embed_tokens(ids[..., -1])  # (B, S, d)

        attended: dict[str, Any]
        if self.config._attn_implementation == LEAN:
            attended = {"packed": PackedSentences.of(position_ids.expand(ids.shape[:2]))}
        else:
            attended = {"attention_mask": create_causal_mask(self.config.cross_modal, text, None, None, position_ids)}
        understood = self._run(self.understanding, audio, position_ids, attended)
        hidden = self._run(self.cross_modal, understood * audio_gate + text * text_gate, position_ids, attended)
        generated = self._run(self.generation, hidden * audio_gate, position_ids, attended)
        return generated * audio_gate + hidden * text_gate

    def _run(self, group: nn.Module, vectors: Tensor, position_ids: Tensor, attended: dict[str, Any]) -> Tensor:
        return group(inputs_embeds=vectors, position_ids=position_ids, use_cache=False, **attended).last_hidden_state

    def depth_hidden_states(self, final: Tensor, frames: Tensor) -> Tensor:
        """Step 8, teacher-forced: final vectors (N, d) and target frames (N, C) -> decoder states (N, C, d_depth)."""
        return self.depth_decoder(final, self.embed_codebooks(frames[:, :-1]))

    def _audio_matrices(self, dtype: torch.dtype) -> Tensor:
        """(C, d_depth, V); in `dtype` where they are kept in eight bits."""
        head = self.audio_head
        return head.unpacked(dtype) if isinstance(head, Int8Heads) else head

    # --- training ---

    def forward(
        self,
        ids: Tensor,
        mask: Tensor,
        loss: Tensor | None = None,
        position_ids: Tensor | None = None,
        loss_settings: LossSettings | None = None,
        counts: LossCounts | None = None,
    ) -> UniAudioOutput:
        """Predict every row from the rows before it: the first S rows are the input, the last S the targets.

        Args:
            ids: (B, S+1, columns) of the rows.
            mask: (B, S+1, columns) bool, which columns are active.
            loss: (B, S+1) weight of each row as a target; None: logits are asked for, not losses.
            position_ids: (B, S+1), restarting at 0 with every packed sentence; None: each entry is one sentence.
            loss_settings: Weights of the parts of the loss; None: as `LossSettings` has them.
            counts: What the losses are divided by; None: the counts of this batch.

        Returns:
            With `loss` the losses, else the logits.
        """
        final = self.last_hidden_state(
            ids[:, :-1], mask[:, :-1], None if position_ids is None else position_ids[:, :-1]
        )
        if loss is None:
            is_audio = select_targets(mask, mask[..., 0], position_ids)[1]
            states = self.depth_hidden_states(final[is_audio], ids[:, 1:, :-1][is_audio])
            audio_logits = torch.einsum("ncd,cdv->ncv", states, self._audio_matrices(states.dtype))
            return UniAudioOutput(text_logits=self.lm_head(final), audio_logits=audio_logits)

        settings = loss_settings or LossSettings()
        is_text, is_audio, weight = select_targets(mask, loss, position_ids)
        if counts is None:
            counts = LossCounts(text=(weight * is_text).sum(), audio=is_audio.sum())

        # Rows without weight cost nothing. At least one row is computed, with weight 0 where it is no target, so that
        # every process runs the same modules whatever is in its batch.
        chosen, weights = _rows_with_weight(weight * is_text)
        vectors = final.flatten(0, 1).index_select(0, chosen)  # (N, d)
        targets = ids[:, 1:, -1:].flatten(0, 1)[chosen]  # (N, 1)
        text_sum, text_correct = cross_entropy(vectors[:, None], self.lm_head.weight.T[None], targets, weights)
        text_loss = text_sum[0] / counts.text.clamp(min=1e-9)
        text_accuracy = text_correct[0] / weights.sum().clamp(min=1e-9)

        chosen, weights = _rows_with_weight(weight * is_audio)
        frames = ids[:, 1:, :-1].flatten(0, 1)[chosen]  # (N, C)
        states = self.depth_hidden_states(final.flatten(0, 1).index_select(0, chosen), frames)  # (N, C, d_depth)
        active = weights[:, None] * mask[:, 1:, :-1].flatten(0, 1)[chosen]  # (N, C): columns that the stream has
        stream_sums, stream_correct = cross_entropy(states, self._audio_matrices(states.dtype), frames, active)
        per_stream = stream_sums / counts.audio.clamp(min=1)
        audio_loss = (per_stream * per_stream.new_tensor(settings.weights_of(len(per_stream)))).sum()

        return UniAudioOutput(
            loss=settings.text_weight * text_loss + settings.audio_weight * audio_loss,
            text_loss=text_loss.detach(),
            audio_loss=audio_loss.detach(),
            per_stream_loss=per_stream.detach(),
            text_accuracy=text_accuracy,
            per_stream_accuracy=stream_correct / active.sum(0).clamp(min=1e-9),
            text_count=counts.text,
            audio_count=counts.audio,
        )


def _rows_with_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight (B, S) -> indices (N,) into the B*S rows and their weights (N,); at least one row."""
    flat = weight.flatten()
    chosen = flat.nonzero()[:, 0]
    if len(chosen) == 0:
        chosen = flat.new_zeros(1, dtype=torch.int64)
    return chosen, flat[chosen]


AutoModel.register(UniAudioConfig, UniAudioForConditionalGeneration)
