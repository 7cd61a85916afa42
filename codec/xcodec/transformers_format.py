"""X-Codec in the format of transformers: folders that `XcodecModel.save_pretrained` wrote or `from_pretrained` reads.

Its config.json and model.safetensors have the names of the library's modules. Weights of the acoustic branch may be
split by weight norm there; here they are whole. What the library keeps for training its teacher (masks, dropout) is
not kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from codec.io.errors import UserError
from codec.io.strict import parse
from codec.io.third_party import third_party_errors
from codec.layers.acoustic import folded, split_weights
from codec.pretrained import CONFIG_FILE, WEIGHTS_FILE, read_config, require_fit, saved_folder
from codec.release.renaming import Renaming
from codec.tensor_files import Stored, load_tensors, save_tensors, stored_tensors
from codec.xcodec.codec import XCodec
from codec.xcodec.config import SemanticConfig, TeacherConfig, XCodecConfig
from codec.xcodec.teacher import MASK, SpeechTeacher, library_config, speech_sizes

T = TypeVar("T")

MODEL_TYPE = "xcodec"  # in the library's config.json
_REMEDY = "save it again with XcodecModel.save_pretrained, or copy it again"
_FORMER = ((".weight_g", ".parametrizations.weight.original0"), (".weight_v", ".parametrizations.weight.original1"))
_ACOUSTIC = "acoustic_"  # how the names of both acoustic parts begin, here and there

_UNIT = (("snake1", "snake_in"), ("conv1", "conv_in"), ("snake2", "snake_out"), ("conv2", "conv_out"))
_SIDES = ("encoder", "decoder")
NAMES = Renaming(
    [
        (f"acoustic_{side}.block.{{}}.res_unit{i + 1}.{theirs}.", f"acoustic_{side}.stages.{{}}.units.{i}.{ours}.")
        for side in _SIDES
        for i in range(3)
        for theirs, ours in _UNIT
    ]
    + [
        (theirs.format(side, "{}"), ours.format(side, "{}"))
        for side in _SIDES
        for theirs, ours in (
            ("acoustic_{0}.block.{1}.snake1.", "acoustic_{0}.stages.{1}.snake."),
            ("acoustic_{0}.snake1.", "acoustic_{0}.snake."),
            ("acoustic_{0}.conv1.", "acoustic_{0}.conv_in."),
            ("acoustic_{0}.conv2.", "acoustic_{0}.conv_out."),
            ("{0}_semantic.conv_blocks.{1}.res_units.{1}.conv1.", "semantic_{0}.stages.{1}.units.{1}.conv_in."),
            ("{0}_semantic.conv_blocks.{1}.res_units.{1}.conv2.", "semantic_{0}.stages.{1}.units.{1}.conv_out."),
            ("{0}_semantic.conv_blocks.{1}.conv.", "semantic_{0}.stages.{1}.conv."),
        )
    ]
    + [
        ("acoustic_encoder.block.{}.conv1.", "acoustic_encoder.stages.{}.conv."),
        ("acoustic_decoder.block.{}.conv_t1.", "acoustic_decoder.stages.{}.conv."),
        ("encoder_semantic.conv.", "semantic_encoder.conv_in."),
        ("decoder_semantic.conv1.", "semantic_decoder.conv_in."),
        ("decoder_semantic.conv2.", "semantic_decoder.conv_out."),
        ("fc.", "fuse."),
        ("fc1.", "to_semantic."),
        ("fc2.", "to_acoustic."),
        ("quantizer.quantizers.{}.codebook.inited", "quantiser.layers.{}._codebook.initted"),
        ("quantizer.quantizers.{}.codebook.", "quantiser.layers.{}._codebook."),
        ("semantic_model.", "teacher.model."),
    ]
)


def load_folder(folder: str | Path) -> XCodec:
    """The codec in a folder of the library, in eval mode and float32.

    Raises:
        UserError: A file is missing or damaged, or the files do not fit each other.
    """
    folder = Path(folder)
    config = _config_in(folder)
    weights = folder / WEIGHTS_FILE
    try:
        with third_party_errors(folder / CONFIG_FILE, "describes nothing that can be built", _REMEDY):
            with torch.device("meta"):
                skeleton = XCodec(config)
    except UserError as error:
        raise error if str(error).startswith(str(folder)) else UserError(f"{folder / CONFIG_FILE}: {error}") from error
    stored = stored_tensors(weights, _REMEDY)
    found = _whole(_part(stored, acoustic=True)) | _part(stored, acoustic=False)
    require_fit(_theirs(skeleton.state_dict()), found, weights, _REMEDY)
    if torch.get_default_device().type == "meta":  # a caller wants shapes alone
        return skeleton.eval()
    codec, tensors = XCodec(config), load_tensors(weights, _REMEDY)
    codec.load_state_dict(_ours(folded(_part(tensors, acoustic=True)) | _part(tensors, acoustic=False)))
    return codec.eval()


def export_folder(codec: XCodec, folder: str | Path) -> None:
    """Write a codec so that `XcodecModel.from_pretrained` reads it.

    Every number of codebooks up to that in use becomes a bandwidth there.

    Raises:
        UserError: The library's model cannot be it: it has no teacher, or an expert as one. Or the system refuses.
    """
    values = library_values(codec)
    kept = range(codec.config.used)
    weights = {
        name: tensor
        for name, tensor in _theirs(codec.state_dict()).items()
        if not name.startswith("quantizer.") or int(name.split(".")[2]) in kept
    }
    with saved_folder(folder) as scratch:
        save_tensors(weights, scratch / WEIGHTS_FILE)
        (scratch / CONFIG_FILE).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def library_values(codec: XCodec) -> dict[str, Any]:
    """The library's configuration of a codec, as `export_folder` writes it."""
    config = codec.config
    if not isinstance(codec.teacher, SpeechTeacher):
        found = "no teacher" if codec.teacher is None else "an expert encoder as its teacher"
        raise UserError(
            f"an X-Codec with {found} cannot be written for transformers, whose model has a HuBERT or WavLM; save it "
            "with save_pretrained"
        )
    rate = math.ceil(config.sample_rate / config.hop)
    return {
        "architectures": ["XcodecModel"],
        "model_type": MODEL_TYPE,
        "dtype": "float32",
        "sample_rate": config.sample_rate,
        "target_bandwidths": [_bandwidth(count, config.codes, rate) for count in range(1, config.used + 1)],
        "codebook_size": config.codes,
        "codebook_dim": config.acoustic_dim + codec.teacher.dim,
        **asdict(config.semantic),
        "acoustic_model_config": {
            "model_type": "dac",
            "encoder_hidden_size": config.encoder_channels,
            "decoder_hidden_size": config.decoder_channels,
            "hidden_size": config.acoustic_dim,
            "downsampling_ratios": list(config.downsampling_ratios),
            "upsampling_ratios": list(config.upsampling_ratios),
            "sampling_rate": config.sample_rate,
        },
        "semantic_model_config": library_config(codec.teacher.sizes).to_dict(),
    }


def _bandwidth(count: int, codes: int, rate: int) -> float:
    """The least of kb/s out of which the library makes `count` codebooks.

    It divides in two ways, here the first and there the second, and rounds down: 2.4 kb/s over 0.4 are 5 to it.
    """
    bits = math.ceil(math.log2(codes)) * rate
    bandwidth = count * bits / 1000
    while 1000 * bandwidth // bits < count or math.floor(bandwidth / (math.log2(codes) * rate / 1000)) < count:
        bandwidth = math.nextafter(bandwidth, math.inf)
    return bandwidth


def _config_in(folder: Path) -> XCodecConfig:
    """Ours, of the library's config.json. What is not written there has the library's defaults."""
    from transformers import XcodecConfig

    path = str(folder / CONFIG_FILE)
    values = read_config(folder, "X-Codec of transformers")
    with third_party_errors(path, "is no configuration of an XcodecModel", _REMEDY):
        theirs = XcodecConfig.from_dict(values)
        whole: dict[str, Any] = theirs.to_dict()
        acoustic, teacher = whole["acoustic_model_config"], whole["semantic_model_config"]
        found = {
            "sample_rate": whole["sample_rate"],
            "downsampling_ratios": acoustic["downsampling_ratios"],
            "upsampling_ratios": acoustic["upsampling_ratios"],
            "encoder_channels": acoustic["encoder_hidden_size"],
            "decoder_channels": acoustic["decoder_hidden_size"],
            "acoustic_dim": acoustic["hidden_size"],
            "semantic": {f.name: whole[f.name] for f in fields(SemanticConfig)},
            "codebooks": theirs.num_quantizers,
            "codes": whole["codebook_size"],
        }
    if whole["codebook_dim"] != theirs.hidden_size:
        raise UserError(
            f"{path}: codebook_dim is {whole['codebook_dim']}, and frames have {theirs.hidden_size} channels; {_REMEDY}"
        )
    return replace(parse(XCodecConfig, found, path), teacher=TeacherConfig(model=speech_sizes(teacher, path)))


def _whole(stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """What a file of the acoustic branch holds once its split weights are whole again."""
    whole = dict(stored)
    for name, (length, direction) in split_weights(stored).items():
        del whole[length]
        whole[name] = whole.pop(direction)
    return whole


def _part(named: Mapping[str, T], acoustic: bool) -> dict[str, T]:
    """What belongs to the acoustic branch, or all else under its present name and without what stands for masks.

    The convolution of the teacher's positions stays split; older files call its parts by the former names.
    """
    made = {}
    for name, value in named.items():
        if name.startswith(_ACOUSTIC) == acoustic and not name.endswith(MASK):
            for former, present in () if acoustic else _FORMER:
                name = name.replace(former, present)
            made[name] = value
    return made


def _theirs(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The library's names and shapes of our state dict: no axis for several codebooks in one, and truth as a number."""
    made = {}
    for name, tensor in state.items():
        if "._codebook." in name:
            tensor = tensor.float().reshape(1) if name.endswith("initted") else tensor[0]
        made[str(NAMES.published(name))] = tensor
    return made


def _ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    made = {}
    for name, tensor in state.items():
        ours = str(NAMES.ours(name))
        if "._codebook." in ours:
            tensor = tensor.reshape(()) > 0 if ours.endswith("initted") else tensor[None]
        made[ours] = tensor
    return made
