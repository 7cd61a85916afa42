"""What learns in which stage, LoRA, and the targets of the distillation."""

from __future__ import annotations

import pytest
import torch

from lm.vocabulary import VocabularyLayout
from tests.factories.language_model import sentences, tiny_config, tiny_model
from tests.factories.stages import tiny_codec
from training.lm.distillation import SemanticDecoder, SemanticTargets
from training.lm.lora import GroupLoraRecipe, merge_lora
from training.lm.stages import TRAINABLE, freeze_for_stage

LORA = GroupLoraRecipe(rank=2, alpha=6.0, dropout=0.0)


def test_every_group_learns_somewhere_before_stage_3_but_the_text_model():
    groups = set(tiny_model().named_groups())
    assert set(TRAINABLE[1]) | set(TRAINABLE[2]) | {"cross_modal"} == groups == set(TRAINABLE[3]) == set(TRAINABLE[4])
    assert not set(TRAINABLE[1]) & set(TRAINABLE[2])


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_set_learning(stage):
    model = tiny_model()
    freeze_for_stage(model, stage, None)
    for group, members in model.named_groups().items():
        assert {parameter.requires_grad for _, parameter in members} == {group in TRAINABLE[stage]}


def test_lora_learns_in_place_of_the_cross_modal_layers():
    model = tiny_model()
    freeze_for_stage(model, 3, LORA)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    cross_modal = {name for name in learning if name.startswith(("cross_modal", "lm_head"))}
    layers = model.config.cross_modal.num_hidden_layers
    assert len(cross_modal) == layers * 7 * 2 and all(".lora_" in name for name in cross_modal)
    assert {name.split(".")[0] for name in learning - cross_modal} == {
        "understanding",
        "generation",
        "depth_decoder",
        "audio_embeddings",
        "audio_head",
    }


def test_merged_lora_is_the_same_model():
    adapted, plain = tiny_model(), tiny_model()
    names = set(plain.state_dict())
    freeze_for_stage(adapted, 3, LORA)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if ".lora_B" in name:  # starts at zero
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    merged = merge_lora(adapted.state_dict(), LORA)
    assert set(merged) == names
    rows = sentences()[0]
    before = plain(rows.ids[None], rows.mask[None]).text_logits
    plain.load_state_dict(merged)
    ours, theirs = (model(rows.ids[None], rows.mask[None]).text_logits for model in (plain, adapted))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert (ours - before).abs().max() > 1e-2


def test_distillation_targets_are_the_codecs_own_vectors():
    codec, layout = tiny_codec(codes=20), VocabularyLayout.from_dict(tiny_config().vocabulary)
    targets = SemanticTargets(codec, layout, torch.device("cpu"))
    rows = sentences()[1]  # five text rows, BOS, 3 descriptive frames, EOS, BOS, 7 structural frames, EOS
    found = targets(rows.ids[None], rows.mask[None])
    descriptive, structural = found["descriptive"].rows[0], found["structural"].rows[0]
    assert descriptive.nonzero()[:, 0].tolist() == [6, 7, 8]
    assert structural.nonzero()[:, 0].tolist() == list(range(11, 18))
    codes = rows.ids[11:18, :8] - layout.offsets[1]
    expected = torch.nn.functional.layer_norm(codec.structural.dequantise(codes[None])[0], (16,))
    torch.testing.assert_close(found["structural"].vectors[0, 11:18], expected)
    codes = rows.ids[6:9, :8]
    expected = torch.nn.functional.layer_norm(codec.descriptive.dequantise(codes[None])[0], (16,))
    torch.testing.assert_close(found["descriptive"].vectors[0, 6:9], expected)


def test_distillation_loss_looks_at_its_rows_only_and_can_be_learned():
    torch.manual_seed(0)
    codec, layout = tiny_codec(codes=20), VocabularyLayout.from_dict(tiny_config().vocabulary)
    rows = sentences()[1]
    targets = SemanticTargets(codec, layout, torch.device("cpu"))(rows.ids[None], rows.mask[None])
    decoder = SemanticDecoder(32, {"descriptive": 16, "structural": 16})
    understood = torch.randn(1, len(rows), 32)
    loss = decoder.loss(understood, targets)
    changed = understood.clone()
    changed[0, :6] += 1.0  # text and BOS
    assert decoder.loss(changed, targets) == loss
    changed[0, 7] += 1.0
    assert decoder.loss(changed, targets) != loss
    optimiser = torch.optim.Adam(decoder.parameters(), lr=0.01)
    for _ in range(200):
        optimiser.zero_grad()
        decoder.loss(understood, targets).backward()
        optimiser.step()
    assert decoder.loss(understood, targets) < 0.1 * loss
    nothing = {kind: target._replace(rows=torch.zeros_like(target.rows)) for kind, target in targets.items()}
    assert decoder.loss(understood, nothing) == 0
