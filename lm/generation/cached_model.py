"""Incremental decoding: the model's layers with static key-value caches, one row at a time.

The layers' own weights and submodules are used; only the loop around them is leaner than the library's, whose
bookkeeping costs as much as the arithmetic at small sizes. Tests hold both to the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig

from codec.layers.onednn import is_supported, multiply
from codec.layers.rotary import SignedRotary, rotate_signed
from lm.generation.generative_model import GenerativeModel
from lm.generation.int8 import Int8Heads
from lm.generation.prepacked_linear import LARGE_MATRIX, MANY_ROWS, PackedLinear, is_plain, pack
from lm.rows import Rows

if TYPE_CHECKING:
    from transformers import LlamaModel
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

FAMILIES = ("llama", "qwen3")  # layer types whose arithmetic `CachedLayers` reproduces
STRETCHING_ROPES = ("dynamic", "longrope")  # their tables depend on how many rows there are

STATIC_ROWS = 256  # caches of static steps hold a multiple of these


def unsupported(config: PreTrainedConfig) -> str | None:
    """What of a transformer `CachedLayers` does not reproduce, in words that follow "layers ..."; None: nothing."""
    if config.model_type not in FAMILIES:
        return f"of the family '{config.model_type}' (supported are {', '.join(FAMILIES)})"
    if set(getattr(config, "layer_types", None) or ()) - {"full_attention"}:
        return "that attend to a sliding window"
    if config.rope_parameters["rope_type"] in STRETCHING_ROPES:
        return f"with rotary positions of the type '{config.rope_parameters['rope_type']}'"
    return None


def rotary_tables(transformer: LlamaModel, positions: int, like: Tensor) -> SignedRotary:
    """The rotary tables of a transformer.

    Args:
        transformer: Whose rotary code it is.
        positions: How many, from 0.
        like: The tables have its type and lie on its device.
    """
    indices = torch.arange(positions, device=like.device)[None]
    cos, sin = (table[0] for table in transformer.rotary_emb(like, indices))  # (positions, head)
    return SignedRotary(cos, sin)


class _Layer:
    """One library layer's matrices, packed where that is possible."""

    def __init__(self, layer: LlamaDecoderLayer, batch: int):
        self.attention, self.mlp = layer.self_attn, layer.mlp
        self.before_attention, self.before_mlp = layer.input_layernorm, layer.post_attention_layernorm
        attention, mlp = self.attention, self.mlp
        qwen3: Any = attention
        self.norms = (qwen3.q_norm, qwen3.k_norm) if hasattr(attention, "q_norm") else None
        self.inward = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.widths = [attention.q_proj.out_features, attention.k_proj.out_features, attention.v_proj.out_features]
        self.packed_inward = pack(self.inward, batch)
        self.packed_outward = pack([attention.o_proj], batch)
        self.packed_gates = pack([mlp.gate_proj, mlp.up_proj], batch)
        self.packed_down = pack([mlp.down_proj], batch)
        plain = (*self.inward, attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        self.plain = all(map(is_plain, plain))

    def _product(self, module: nn.Linear, x: Tensor) -> Tensor:
        if self.plain and (x.shape[1] >= MANY_ROWS or module.weight.numel() >= LARGE_MATRIX):
            return multiply(x, module.weight)
        return module(x)

    def queries_keys_values(self, x: Tensor) -> Sequence[Tensor]:
        """x (B, S, d), not yet normed."""
        x = _norm(self.before_attention, x)
        if self.packed_inward is not None:
            return self.packed_inward(x).split(self.widths, dim=-1)
        return [self._product(module, x) for module in self.inward]

    def after_attention(self, attended: Tensor, x: Tensor) -> Tensor:
        """The residual stream x (B, S, d) after attention and MLP."""
        if self.packed_outward is not None:
            x = self.packed_outward.plus(attended, x)
        else:
            x = x + self._product(self.attention.o_proj, attended)
        mlp, normed = self.mlp, _norm(self.before_mlp, x)
        if self.packed_gates is not None:
            gate, up = self.packed_gates(normed).chunk(2, dim=-1)
        else:
            gate, up = self._product(mlp.gate_proj, normed), self._product(mlp.up_proj, normed)
        inner = mlp.act_fn(gate).mul_(up)
        if self.packed_down is not None:
            return self.packed_down.plus(inner, x)
        return x + self._product(mlp.down_proj, inner)


class CachedLayers:
    """A group of layers that remembers keys and values of up to `capacity` rows per batch entry."""

    def __init__(
        self,
        transformer: LlamaModel,
        batch: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
        static: bool = False,
    ):
        """
        Args:
            transformer: The layers.
            batch: Entries of the batch.
            capacity: Rows of the cache.
            dtype: Of the cache.
            device: Where the cache lies.
            static: For static steps, which read the weights as they are.

        Raises:
            ValueError: The layers are of a kind that is not reproduced here.
        """
        config: PreTrainedConfig = transformer.config
        strange = unsupported(config)
        if strange:
            raise ValueError(f"generation does not support layers {strange}")
        self.layers = [_Layer(cast("LlamaDecoderLayer", layer), 1 if static else batch) for layer in transformer.layers]
        self.norm = transformer.norm
        self.heads, self.groups, self.head = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        shape = (len(self.layers), batch, self.groups, capacity, self.head)
        new = torch.zeros if static else torch.empty  # what is hidden has to be finite all the same
        self.keys = new(shape, dtype=dtype, device=device)
        self.values = new(shape, dtype=dtype, device=device)

    def __call__(self, x: Tensor, start: int | Tensor, rotary: tuple[Tensor, Tensor], bias: Tensor | None) -> Tensor:
        """Rows x (B, S, d) at cache columns start..start+S-1 -> normed output (B, S, d).

        Args:
            x: The rows, not yet normed.
            start: Cache column of the first one; as a tensor (1,) for one row, which then sees as many columns as its
                bias (B, 1, 1, columns) covers.
            rotary: Cosines and signed sines of the rows' positions.
            bias: What is added to attention scores, (B, 1, S, start + S), or None for plain causality.
        """
        for index, layer in enumerate(self.layers):
            x = layer.after_attention(self._attend(index, layer, x, start, rotary, bias), x)
        return _norm(self.norm, x)

    def _attend(
        self,
        index: int,
        layer: _Layer,
        x: Tensor,
        start: int | Tensor,
        rotary: tuple[Tensor, Tensor],
        bias: Tensor | None,
    ) -> Tensor:
        batch, rows, _ = x.shape
        query, key, value = (
            part.view(batch, rows, -1, self.head) for part in layer.queries_keys_values(x)
        )  # (B, S, heads or groups, head)
        attention = layer.attention
        if layer.norms is not None:
            query, key = _norm(layer.norms[0], query), _norm(layer.norms[1], key)
        query = rotate_signed(query, rotary)
        if isinstance(start, Tensor):
            keys, values = self.keys[index], self.values[index]
            keys.index_copy_(2, start, rotate_signed(key, rotary).transpose(1, 2))
            values.index_copy_(2, start, value.transpose(1, 2))
            if bias is not None:
                keys, values = keys[:, :, : bias.shape[-1]], values[:, :, : bias.shape[-1]]
        else:
            stop = start + rows
            keys, values = self.keys[index, :, :, :stop], self.values[index, :, :, :stop]
            keys[:, :, start:] = rotate_signed(key, rotary).transpose(1, 2)
            values[:, :, start:] = value.transpose(1, 2)
        if rows == 1:  # the query heads of a group share its keys: they stand where query rows would
            query = query.view(batch, self.groups, -1, self.head)
            out = F.scaled_dot_product_attention(query, keys, values, attn_mask=bias, scale=attention.scaling)
        else:
            out = F.scaled_dot_product_attention(
                query.transpose(1, 2), keys, values, attn_mask=bias, is_causal=bias is None,
                scale=attention.scaling, enable_gqa=self.heads != self.groups,
            ).transpose(1, 2)  # fmt: skip
        return out.reshape(batch, rows, -1)

    def keep(self, entries: Tensor) -> None:
        """Forget every batch entry but these."""
        self.keys, self.values = self.keys[:, entries], self.values[:, entries]


class RowDecoder:
    """The language model's three groups, fed row by row (published model, §A.5).

    Prompts of unequal length are padded on the left, so that all entries of the batch write the same cache column; the
    padding is hidden from attention. It has to be: rows that are zero do attend and are attended to (§A.3).
    """

    def __init__(self, model: GenerativeModel, prompts: Sequence[Rows], max_rows: int, static: bool = False):
        """
        Args:
            model: The language model.
            prompts: One of each entry of the batch.
            max_rows: Rows that are fed after the prompts, at most.
            static: Rows after the prompt are fed at `position`, a tensor, in steps that are all alike.

        Raises:
            ValueError: For an empty prompt, or one that leaves no room in the model's context.
        """
        self.model = model
        device, dtype = model.audio_embeddings.weight.device, model.audio_embeddings.weight.dtype
        capacity, batch = self._rows_for(prompts, max_rows), len(prompts)
        if static:  # few different capacities are few compilations and captures
            capacity = -(-capacity // STATIC_ROWS) * STATIC_ROWS
        groups = (model.understanding, model.cross_modal, model.generation)
        self.understanding, self.cross_modal, self.generation = (
            CachedLayers(group, batch, capacity, dtype, device, static) for group in groups
        )
        self.rotary = rotary_tables(model.cross_modal, capacity, model.audio_embeddings.weight)
        self.capacity = capacity
        self._columns = torch.arange(capacity, device=device)
        self.padding = torch.zeros(batch, dtype=torch.int64, device=device)  # (B,) rows before each prompt
        self.position = torch.zeros(1, dtype=torch.int64, device=device) if static else None  # next cache column
        # What later rows may see of each column, everything but padding: (B, 1, 1, capacity).
        self.bias = torch.zeros(batch, 1, 1, capacity, dtype=dtype, device=device) if static else None
        self.restart(prompts)

    def restart(self, prompts: Sequence[Rows]) -> None:
        """Begin with these prompts, as many as there are entries and no longer than fits into the caches.

        What a captured step reads stays at its place.

        Raises:
            ValueError: As on construction.
        """
        self.column = self._checked(prompts)
        lengths = torch.tensor([len(rows) for rows in prompts])
        device, columns = self.padding.device, self.model.config.layout.num_columns
        self.padding.copy_(self.column - lengths)
        self.room = (self.model.config.cross_modal.max_position_embeddings - lengths).to(device)  # (B,) rows that fit
        self.padded = bool((lengths < self.column).any())

        self.ids = torch.zeros(len(prompts), self.column, columns, dtype=torch.int64)
        self.mask = torch.zeros(len(prompts), self.column, columns, dtype=torch.bool)
        for i, rows in enumerate(prompts):
            self.ids[i, self.column - len(rows) :], self.mask[i, self.column - len(rows) :] = rows.ids, rows.mask
        self.last_is_audio = bool(self.mask[:, -1, 0].any())
        self.ids, self.mask = self.ids.to(device), self.mask.to(device)

        self._seen = self.capacity  # columns that a static step sees
        if self.position is not None:
            self.position.fill_(self.column)
        hidden = self._columns < self.padding[:, None]  # (B, capacity)
        if self.bias is not None:
            self.bias.zero_().masked_fill_(hidden[:, None, None], float("-inf"))
        elif self.padded:
            bias = torch.zeros(hidden.shape, dtype=self.rotary.cos.dtype, device=device)
            self.bias = bias.masked_fill_(hidden, float("-inf"))[:, None, None]

    def fits(self, prompts: Sequence[Rows], max_rows: int) -> bool:
        """Whether the caches have room for these prompts and so many rows."""
        return self._rows_for(prompts, max_rows) <= self.capacity

    def _rows_for(self, prompts: Sequence[Rows], max_rows: int) -> int:
        return self._checked(prompts) + min(max_rows, self.model.config.cross_modal.max_position_embeddings)

    def _checked(self, prompts: Sequence[Rows]) -> int:
        """Rows of the longest prompt. Raises ValueError where one is empty or leaves no room."""
        context = self.model.config.cross_modal.max_position_embeddings
        for rows in prompts:
            if len(rows) == 0:
                raise ValueError("a prompt needs at least one row")
            if len(rows) >= context:
                raise ValueError(f"the prompt has {len(rows)} rows, but the model's context holds {context}")
        return max(map(len, prompts))

    def _prompt_bias(self, bias: Tensor | None) -> Tensor | None:
        """(B, 1, P, P) for the prompt: causal, and every row sees itself, so that padding stays finite."""
        if bias is None:
            return None
        square = torch.full((self.column, self.column), float("-inf"), dtype=bias.dtype, device=bias.device)
        return (bias[..., : self.column] + square.triu(1)).masked_fill(
            torch.eye(self.column, dtype=torch.bool, device=bias.device), 0.0
        )

    def prefill(self, text_only: bool = False) -> Tensor:
        """Run the prompts; final vector of their last row (B, d).

        Args:
            text_only: Nothing but text will follow, so what the generation layers remember is never asked for.
        """
        model, ids, mask = self.model, self.ids, self.mask
        is_audio, is_text = mask[..., :1], mask[..., -1:]  # (B, P, 1)
        positions = (torch.arange(self.column, device=ids.device) - self.padding[:, None]).clamp(min=0)
        rotary = self.rotary.at(positions)
        seen = self._prompt_bias(self.bias if self.padded else None)

        x = model.cross_modal.embed_tokens(ids[..., -1]) * is_text  # (B, P, d)
        if not (text_only and not bool(is_audio.any())):
            frames = ids[..., :-1][is_audio[..., 0]]  # (N, 8)
            audio = torch.zeros_like(x).masked_scatter(is_audio, model.embed_frames(frames))
            x = x + self.understanding(audio, 0, rotary, seen) * is_audio
        hidden = self.cross_modal(x, 0, rotary, seen)
        if text_only and not self.last_is_audio:
            return hidden[:, -1]
        generated = self.generation(hidden * is_audio, 0, rotary, seen)
        return torch.where(is_audio[:, -1], generated[:, -1], hidden[:, -1])

    def feed_audio(self, frames: Tensor) -> Tensor:
        """Append an audio row to every entry: frames (B, 8) -> final vectors (B, d)."""
        column, rotary, bias = self._next()
        x = self.understanding(self.model.embed_frames(frames)[:, None], column, rotary, bias)
        x = self.cross_modal(x, column, rotary, bias)
        return self.generation(x, column, rotary, bias)[:, 0]

    def feed_text(self, ids: Tensor) -> Tensor:
        """Append a text row to every entry: ids (B,) -> final vectors (B, d).

        Only for text that runs to the end: the experts are skipped, and later audio rows would miss what they remember.
        """
        column, rotary, bias = self._next()
        return self.cross_modal(self.model.cross_modal.embed_tokens(ids)[:, None], column, rotary, bias)[:, 0]

    def _next(self) -> tuple[int | Tensor, tuple[Tensor, Tensor], Tensor | None]:
        """Claim the next cache column: the column, its rotary tables, and what it may see."""
        if self.position is not None and self.bias is not None:
            return self._next_static(self.position, self.bias)
        column, self.column = self.column, self.column + 1
        where = (column - self.padding)[:, None] if self.padded else slice(column, column + 1)
        seen = None if self.bias is None else self.bias[..., : self.column]
        return column, self.rotary.at(where), seen

    def _next_static(self, position: Tensor, bias: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        column = position.clone()
        position.add_(1)
        columns = self._columns[: self._seen]
        future = torch.zeros_like(columns, dtype=self.rotary.cos.dtype)
        future = future.masked_fill(columns > column, float("-inf"))[None, None, None]  # (1, 1, 1, columns)
        seen = bias[..., : self._seen] + future
        return column, self.rotary.at((column - self.padding)[:, None]), seen

    def cover(self) -> int:
        """Have the next static step see the rows so far and its own, rounded up; how many columns that are."""
        self.column += 1  # the host's count of what `position` says
        self._seen = min(-(-self.column // STATIC_ROWS) * STATIC_ROWS, self.capacity)
        return self._seen

    def static_state(self) -> list[Tensor]:
        """What a static step changes, at addresses that stay. Raises ValueError where steps are not static."""
        if self.position is None:
            raise ValueError("only a static decoder has a state at addresses that stay")
        groups = (self.understanding, self.cross_modal, self.generation)
        return [self.position, *(cache for group in groups for cache in (group.keys, group.values))]

    def keep(self, entries: Tensor) -> None:
        """Forget every batch entry but these."""
        for group in (self.understanding, self.cross_modal, self.generation):
            group.keep(entries)
        self.padding, self.room = self.padding[entries], self.room[entries]
        self.bias = None if self.bias is None else self.bias[entries]


class FrameDecoder:
    """The depth decoder with its own cache of eight positions: final vectors in, frames out (published model, §A.5)."""

    def __init__(self, model: GenerativeModel, batch: int, static: bool = False):
        """
        Args:
            model: The language model.
            batch: Entries of the batch.
            static: For static steps, as in `CachedLayers`.
        """
        layout = model.config.layout
        self.model, self._stride, self._codebooks = model, layout.audio_size, layout.num_codebooks
        weight = model.audio_embeddings.weight
        transformer = model.depth_decoder.transformer
        self.layers = CachedLayers(transformer, batch, self._codebooks, weight.dtype, weight.device, static)
        rotary = rotary_tables(transformer, self._codebooks, weight)
        self.rotary = [rotary.at(slice(c, c + 1)) for c in range(self._codebooks)]

    def frame(self, final: Tensor, choose: Callable[[int, Tensor], Tensor]) -> Tensor:
        """final (B, d) -> ids (B, 8), codebook after codebook.

        Args:
            final: Final vectors of the rows before.
            choose: Codebook and decoder states (B, d_depth) -> ids (B,), which the next codebook is told.
        """
        model, x, ids = self.model, final, []
        for codebook in range(self._codebooks):
            vectors = model.depth_decoder.projection(x)[:, None]
            states = self.layers(vectors, codebook, self.rotary[codebook], None)[:, 0]
            ids.append(choose(codebook, states))
            if codebook + 1 < self._codebooks:
                x = model.audio_embeddings(ids[-1] + codebook * self._stride)
        return torch.stack(ids, dim=1)

    def keep(self, entries: Tensor) -> None:
        """Forget every batch entry but these."""
        self.layers.keep(entries)


class AudioHeads:
    """The eight output matrices, read in windows of ids."""

    def __init__(self, head: Tensor | Int8Heads, batch: int, static: bool = False):
        """
        Args:
            head: (8, d_depth, V), or the same in eight bits.
            batch: Entries of the batch.
            static: For static steps, as in `CachedLayers`.
        """
        self._head = head
        self._pack = batch > 1 and not static and isinstance(head, Tensor) and is_supported(head)
        self._batch = batch
        self._packed: dict[tuple[int, int, int], PackedLinear] = {}

    def logits(self, codebook: int, states: Tensor, windows: Sequence[tuple[int, int]]) -> Tensor:
        """Logits (B, ids) in fp32.

        Args:
            codebook: Whose matrix is read.
            states: (B, d_depth) of the depth decoder.
            windows: The ids, as [low, high) of windows that adjoin each other.
        """
        if isinstance(self._head, Int8Heads):
            return self._head.logits(codebook, states, windows[0][0], windows[-1][1]).float()
        if not self._pack:
            return (states @ self._head[codebook, :, windows[0][0] : windows[-1][1]]).float()
        parts = []
        for low, high in windows:
            packed = self._packed.get((codebook, low, high))
            if packed is None:
                packed = PackedLinear(self._head[codebook, :, low:high].T, self._batch)
                self._packed[codebook, low, high] = packed
            parts.append(packed(states).float())
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _norm(module: LlamaRMSNorm, x: Tensor) -> Tensor:
    return F.rms_norm(x, module.weight.shape, module.weight, module.variance_epsilon)
