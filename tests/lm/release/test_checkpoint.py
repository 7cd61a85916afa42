"""Released checkpoint files: read whole or not at all, never run, and written back bit for bit."""

import os
import zipfile

import pytest
import torch

from codec.io.errors import UserError
from lm.model import UniAudioForConditionalGeneration
from lm.release.checkpoint import model_from_checkpoint, read_checkpoint, write_checkpoint
from lm.release.state_dict import from_published, fused_qkv, legacy_qkv
from lm.rows import collate
from tests.factories import language_model
from tests.factories.release.lm import published_state, save_released, text_tokenizer, tiny_config


@pytest.fixture(scope="module")
def config():
    return tiny_config(text_tokenizer())


def rows():
    batch = collate(language_model.sentences(), language_model.LAYOUT)
    return batch.ids, batch.mask


def import_state(state, config, path):
    return model_from_checkpoint(read_checkpoint(save_released(path, state)), config)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("prefix", ["", "module.", "module.module."])
def test_imported_logits_are_those_of_the_mapping(config, tmp_path, legacy, prefix):
    """The mapping is the one that reproduces the published model's numbers (test_published.py)."""
    reference = UniAudioForConditionalGeneration(config).eval()
    reference.load_state_dict(from_published(published_state(config), config))
    model = import_state(published_state(config, legacy, prefix), config, tmp_path / "x.checkpoint")
    with torch.no_grad():
        ours, wanted = model(*rows()), reference(*rows())
    assert torch.equal(ours.text_logits, wanted.text_logits) and torch.equal(ours.audio_logits, wanted.audio_logits)
    assert not any(value.is_meta for value in [*model.parameters(), *model.buffers()])


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_export_of_an_import_is_the_same_bit_for_bit(config, tmp_path, legacy, dtype):
    state = published_state(config, legacy, "module.", dtype)
    model = import_state(state, config, tmp_path / "x.checkpoint")
    write_checkpoint(tmp_path / "y.checkpoint", model, list(state))
    again = torch.load(tmp_path / "y.checkpoint", weights_only=True)
    assert set(again) == {"model", "optimizer", "scheduler", "reporter"}
    assert list(again["model"]) == list(state)
    for key, value in state.items():
        bits = torch.int32 if dtype == torch.float32 else torch.int16
        assert again["model"][key].dtype == dtype
        assert torch.equal(again["model"][key].view(bits), value.detach().view(bits)), key
    size = sum(value.nbytes for value in state.values())
    assert (tmp_path / "y.checkpoint").stat().st_size < size + 500 * len(state), "no tensor drags others along"


def test_without_recorded_names_the_current_form_is_written(config, tmp_path):
    model = import_state(published_state(config, legacy=True, prefix="module."), config, tmp_path / "x.checkpoint")
    write_checkpoint(tmp_path / "y.checkpoint", model)
    again = read_checkpoint(tmp_path / "y.checkpoint").model
    wanted = published_state(config)
    assert again.keys() == wanted.keys() and all(torch.equal(again[key], wanted[key]) for key in wanted)


def test_legacy_qkv_is_interleaved_per_group(config):
    """Two groups of two query heads: the legacy rows are q0 q1 k0 v0, q2 q3 k1 v1."""
    head = config.cross_modal.head_dim
    label = torch.tensor([0, 1, 2, 3, 10, 11, 20, 21]).repeat_interleave(head)[:, None].expand(-1, 5)
    legacy = legacy_qkv(label, "backbone.", config)
    assert legacy[::head, 0].tolist() == [0, 1, 10, 20, 2, 3, 11, 21]
    assert torch.equal(fused_qkv(legacy, "backbone.", config), label)


class Call:
    """An object whose pickle calls a function while it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["model", "reporter", "extra"])
def test_a_pickle_that_would_run_code_is_refused_and_nothing_ran(config, tmp_path, place, zipped, protocol):
    """The same file does run its code when it is read carelessly."""
    ran, path = tmp_path / "ran", tmp_path / "evil.checkpoint"
    for function, arguments in ((os.mkdir, (str(ran),)), (eval, (f"__import__('os').mkdir({str(ran)!r})",))):
        call = Call(function, *arguments)
        content = {"model": published_state(config), "optimizer": {}, "scheduler": {}, "reporter": {}}
        content[place] = {"x": call}
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
        with pytest.raises(UserError, match="evil.checkpoint: (refused|damaged)") as refusal:
            read_checkpoint(path)
        assert not ran.exists()
        if zipped and protocol == 2:
            assert "nothing of it was run" in str(refusal.value)
            assert ("mkdir" in str(refusal.value)) or ("eval" in str(refusal.value))
        assert "weights_only" not in str(refusal.value), "no advice to read it carelessly"
        torch.load(path, weights_only=False)
        assert ran.exists()
        ran.rmdir()


class MetricLogger:
    """A class of somebody's trainer."""


def test_a_type_that_weights_do_not_need_is_named(config, tmp_path):
    path = save_released(tmp_path / "x.checkpoint", published_state(config), reporter=MetricLogger())
    with pytest.raises(UserError, match=r"x.checkpoint: refused.*MetricLogger.*save its model alone"):
        read_checkpoint(path)


@pytest.mark.parametrize("part", [0, 10, 0.5, 0.99])
def test_a_truncated_file_is_named(config, tmp_path, part):
    whole = save_released(tmp_path / "whole", published_state(config)).read_bytes()
    path = tmp_path / "cut.checkpoint"
    path.write_bytes(whole[: part if isinstance(part, int) else int(len(whole) * part)])
    with pytest.raises(UserError, match="cut.checkpoint: (damaged, cut short|an empty file).*download it again"):
        read_checkpoint(path)


def test_files_that_are_no_checkpoint_are_named(config, tmp_path):
    with pytest.raises(UserError, match="none.checkpoint: no such file"):
        read_checkpoint(tmp_path / "none.checkpoint")
    with pytest.raises(UserError, match="a folder, where a file of weights is expected"):
        read_checkpoint(tmp_path)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match="other.zip: a zip archive, but no torch checkpoint .it holds readme.txt"):
        read_checkpoint(tmp_path / "other.zip")
    torch.save({"codec_model": {}}, tmp_path / "codec.pth")
    with pytest.raises(UserError, match="codec.pth: holds no state dict.* .found: codec_model."):
        read_checkpoint(tmp_path / "codec.pth")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(UserError, match="list.pth: holds no state dict, but one list"):
        read_checkpoint(tmp_path / "list.pth")
    torch.save({"model": {"epoch": 3}}, tmp_path / "odd.pth")
    with pytest.raises(UserError, match="odd.pth: holds no state dict"):
        read_checkpoint(tmp_path / "odd.pth")


def test_tensors_that_are_not_plain_are_named(config, tmp_path):
    plain = torch.eye(3)
    for odd in (plain.to_sparse(), plain.to("meta"), torch.quantize_per_tensor(plain, 1.0, 0, torch.qint8)):
        torch.save({"model": {"projection.weight": odd}}, tmp_path / "odd.pth")
        with pytest.raises(UserError, match="odd.pth: (damaged|'projection.weight' is a sparse, quantised or empty)"):
            read_checkpoint(tmp_path / "odd.pth")


def changed(state, **changes):
    """The state with keys (dots written as __) replaced, or removed where None."""
    state = dict(state)
    for key, value in changes.items():
        key = key.replace("__", ".")
        state.pop(key, None)
        if value is not None:
            state[key] = value
    return state


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"module__projection__weight": None}, r"1 tensors are missing \(projection.weight\)"),
        ({"module__backbone__lm_head__bias": torch.ones(3)}, r"1 are not part.*module.backbone.lm_head.bias"),
        ({"module__surplus": torch.ones(3)}, r"1 are not part of the model \(module.surplus\)"),
        (
            {"module__audio_head": torch.ones(8, 16, 9)},
            r"'module.audio_head' is \[8, 16, 9\] instead of \[8, 16, 140\]",
        ),
        ({"module__projection__weight": torch.ones(16, 32, dtype=torch.bfloat16)}, "one floating-point type"),
        ({"projection__weight": torch.ones(16, 32)}, "'module.projection.weight' and 'projection.weight' are the same"),
        (
            {"module__backbone__transformer__h__0__attn__attn__weight": torch.ones(64, 32)},
            "attn.qkv.weight' and '.*attn.attn.weight' are the same tensor",
        ),
        ({"module__backbone__transformer__h__7__norm_1__weight": torch.ones(32)}, r"not part.*h.7.norm_1"),
    ],
)
def test_every_tensor_is_accounted_for(config, tmp_path, changes, message):
    state = changed(published_state(config, prefix="module."), **changes)
    with pytest.raises(UserError, match=f"x.checkpoint: .*{message}"):
        import_state(state, config, tmp_path / "x.checkpoint")


def test_recorded_names_that_are_not_the_models_are_named(config, tmp_path):
    model = UniAudioForConditionalGeneration(config)
    names = list(published_state(config))
    with pytest.raises(UserError, match="has no 'surplus'"):
        write_checkpoint(tmp_path / "y", model, [*names, "surplus"])
    with pytest.raises(UserError, match=f"does not list '{names[3]}'"):
        write_checkpoint(tmp_path / "y", model, [name for name in names if name != names[3]])
