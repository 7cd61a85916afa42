"""The published model's numbers from the published model's weights (synthetic ones; see the fixtures' README)."""

import json

import pytest
import torch

from lm.generation.cached_model import FrameDecoder, RowDecoder
from lm.losses import LossSettings
from lm.model import UniAudioForConditionalGeneration
from lm.release.state_dict import from_published, to_published
from lm.rows import Rows
from tests.factories.release.lm_parity import load_fixture, published_config


@pytest.fixture(scope="module")
def forward(parity_dir):
    return load_fixture(parity_dir, "lm_forward")


@pytest.fixture(scope="module")
def generate(parity_dir):
    return load_fixture(parity_dir, "lm_generate")


def difference(ours, theirs):
    assert ours.shape == theirs.shape
    return (ours - theirs).abs().max().item()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_forward_taps_and_logits(forward, attention):
    model, tensors, _ = forward
    model.set_attn_implementation(attention)
    assert model.cross_modal.config._attn_implementation == attention
    taps = {}

    def tap(name):
        def hook(module, args, kwargs, output):
            taps[f"tap.{name}_in"], taps[f"tap.{name}_out"] = kwargs["inputs_embeds"], output.last_hidden_state

        return hook

    modules = {
        "understanding": model.understanding,
        "backbone": model.cross_modal,
        "generation": model.generation,
        "decoder": model.depth_decoder.transformer,
    }
    handles = [module.register_forward_hook(tap(name), with_kwargs=True) for name, module in modules.items()]
    first_layer = model.cross_modal.layers[0].register_forward_hook(
        lambda module, args, output: taps.__setitem__("tap.backbone_block0_out", output)
    )
    output = model(tensors["tokens"], tensors["tokens_mask"].bool())
    for handle in [*handles, first_layer]:
        handle.remove()
    taps["tap.final"] = model.last_hidden_state(tensors["tokens"][:, :-1], tensors["tokens_mask"][:, :-1].bool())

    for name, value in tensors.items():
        if name.startswith("tap."):
            assert difference(taps[name], value) < 1e-4, name
    assert difference(output.text_logits, tensors["text_logits"]) < 3e-4
    assert difference(output.audio_logits, tensors["audio_logits"]) < 3e-4


@torch.no_grad()
def test_losses(forward):
    model, tensors, description = forward
    losses = description["losses"]
    inputs = tensors["tokens"], tensors["tokens_mask"].bool(), tensors["loss_mask"].amax(-1)
    output = model(*inputs)
    assert output.text_loss.item() == pytest.approx(losses["loss_text"], abs=5e-5)
    assert output.audio_loss.item() == pytest.approx(losses["loss_audio_equal_weights"], abs=5e-5)
    for codebook in range(description["config"]["n_codebooks"]):
        assert output.per_stream_loss[codebook].item() == pytest.approx(losses[f"loss_{codebook + 1}"], abs=5e-5)
    assert output.audio_count.item() == losses["n_audio_frames"]
    assert output.text_count.item() == losses["n_text_targets"]
    weighted = LossSettings(stream_weights=tuple(weight / 8 for weight in losses["weights_used"]))
    assert model(*inputs, loss_settings=weighted).audio_loss.item() == pytest.approx(
        losses["loss_audio_weighted"], abs=5e-5
    )


def rows_of(tensors, name, mask_name=None):
    ids = tensors[name]
    mask = tensors[mask_name or f"{name}_mask"].bool()
    return Rows(ids, mask, torch.zeros(len(ids)))


@torch.no_grad()
def test_greedy_text_loop(generate):
    model, tensors, _ = generate
    decoder = RowDecoder(model, [rows_of(tensors, "text_loop.prompt")], len(tensors["text_loop.tokens"]) + 1)
    final = decoder.prefill(text_only=True)
    for step, expected in enumerate(tensors["text_loop.tokens"].tolist()):
        logits = model.lm_head(final)
        assert difference(logits[0], tensors["text_loop.text_logits"][step]) < 1e-3
        assert logits.argmax(-1).tolist() == [expected]
        final = decoder.feed_text(logits.argmax(-1))


@pytest.mark.parametrize("name", ["audio_loop", "cfg_loop"])
@torch.no_grad()
def test_greedy_audio_loops(generate, name):
    """Eight depth steps per row, the forced switch of phases, and guidance: every logit and every id."""
    model, tensors, description = generate
    layout, guided = model.config.layout, name == "cfg_loop"
    prompts = [rows_of(tensors, "audio_loop.prompt")]
    if guided:
        prompts.append(rows_of(tensors, "cfg_loop.negative_prompt", "audio_loop.prompt_mask"))
    decoder, frames = RowDecoder(model, prompts, len(tensors[f"{name}.sampled"]) + 1), FrameDecoder(model, len(prompts))

    def combine(logits):
        if not guided:
            return logits
        conditional, unconditional = logits
        return (unconditional + description["config"]["cfg_scale"] * (conditional - unconditional))[None]

    final = decoder.prefill()
    for step, expected in enumerate(tensors[f"{name}.sampled"]):
        text_logits = combine(model.lm_head(final))
        assert difference(text_logits[0], tensors[f"{name}.text_logits"][step]) < 1e-3
        assert text_logits.argmax().item() == expected[0]

        def choose(codebook, states, step=step):
            raw = states @ model.audio_head[codebook]
            if guided:
                expected_raw = tensors["cfg_loop.raw_audio_logits_cond_uncond"][step, codebook]
                assert difference(raw, expected_raw) < 1e-3
            logits = combine(raw)
            assert difference(logits[0], tensors[f"{name}.audio_logits"][step, codebook]) < 1e-3
            logits[:, : tensors[f"{name}.forbid_prefix"][step]] = float("-inf")
            return logits.argmax(-1).expand(len(prompts))

        ids = frames.frame(final, choose)
        assert ids[0].tolist() == expected[1:].tolist()
        fed = tensors[f"{name}.fed_rows"][step, :8]
        if step == description["config"]["eos_at"]:
            assert fed.tolist() == layout.closing(0)[:, 0].tolist()
        final = decoder.feed_audio(fed.expand(len(prompts), 8))


def test_names_round_trip(forward):
    model = forward[0]
    state = model.state_dict()
    theirs = to_published(state)
    back = from_published(theirs, model.config)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_foreign_key_is_named(forward):
    with pytest.raises(ValueError, match="backbone.transformer.h.0.attn.bias"):
        from_published({"backbone.transformer.h.0.attn.bias": torch.zeros(1)}, forward[0].config)


def test_shapes_of_the_3b_model(parity_dir):
    """Every tensor of the published model, built without memory; a shape does not say how wide a head is."""
    theirs = json.loads((parity_dir / "lm_full_state_shapes.json").read_text())
    text_size = theirs["backbone.lm_head.weight"][0]
    ids = theirs["audio_head"][2]

    def gpt(name: str, head: int) -> dict:
        layers = {key.split(".")[3] for key in theirs if key.startswith(f"{name}.transformer.h.")}
        rows = theirs[f"{name}.transformer.h.0.attn.qkv.weight"][0]
        width, heads = theirs[f"{name}.transformer.h.0.attn.proj.weight"]
        return {
            "padded_vocab_size": text_size,
            "n_layer": len(layers),
            "n_embd": width,
            "n_head": heads // head,
            "n_query_groups": (rows - heads) // (2 * head),
            "intermediate_size": theirs[f"{name}.transformer.h.0.mlp.fc_1.weight"][0],
        }

    config = published_config(
        {
            "text_vocab": text_size,
            "text_pad": text_size - 1,
            "reason_codes": 4096, "reason_card": 4100, "reason_bos": 4096, "reason_eos": 4097, "reason_pad": 4099,
            "semantic_codes": 8192, "semantic_card": ids - 4100, "semantic_bos": 8192, "semantic_eos": 8193,
            "semantic_pad": 8195,
            "backbone": gpt("backbone", 128),
            "understanding": gpt("audio_understanding_expert", 128),
            "generation": gpt("audio_generation_expert", 128),
            "decoder": gpt("decoder", 64),
        }
    )  # fmt: skip
    with torch.device("meta"):
        model = UniAudioForConditionalGeneration(config)
    ours = {key: list(value.shape) for key, value in to_published(model.state_dict()).items()}
    assert ours == theirs
