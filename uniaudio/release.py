"""Released weights and model folders: what is read from a release becomes a folder, and a folder a release again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from codec.io.errors import UserError
from codec.io.files import new_file, new_folder, require_free
from codec.io.shipped import located
from codec.reasoning.load import load_reasoning_codec
from codec.release.exporter import write_codec
from codec.release.record import PublishedFiles
from codec.tokenizer import AudioTokenizer
from lm.model import UniAudioForConditionalGeneration
from lm.release.checkpoint import PublishedRecord, model_from_checkpoint, read_checkpoint, write_checkpoint
from lm.release.config import describes, model_config, published_values, read_yaml
from lm.text_tokenizer import TextTokenizer
from uniaudio.processor import AUDIO_FOLDER, TEXT_FOLDER, VOCABULARY_FILE
from uniaudio.release_prompts import save_prompts


@dataclass(frozen=True)
class Imported:
    """What an import found."""

    tensors: int  # number of tensors, all of which are in the model
    left_out: list[str]  # other entries of the checkpoint (optimiser state and the like), which no model folder holds
    absent: list[str]  # parts that the folder needs before `UniAudio.from_pretrained` can read it


def import_published(
    checkpoint: Path,
    config: Path,
    out: Path,
    text_tokenizer: TextTokenizer | None = None,
    codec: AudioTokenizer | None = None,
    codec_files: PublishedFiles | None = None,
    prompts: Mapping[str, Sequence[str]] | None = None,
) -> Imported:
    """Write a released language model (checkpoint and llm_config.yaml) as a model folder.

    With both tokenizers the folder is complete; a part that is not given is not in it. `out` appears when all of it is
    written, so an import that fails leaves nothing. Raises UserError naming the file and what does not fit.

    Args:
        codec_files: Of a codec that was imported, so that it can be exported from the model's folder, too.
        prompts: Task -> sentences, of the release.
    """
    values = read_yaml(config)
    shape = model_config(
        values,
        str(config),
        text_tokenizer,
        codec=codec.streams if codec is not None else None,
        audio_fingerprint=codec.fingerprint if codec is not None else "",
    )
    found = read_checkpoint(checkpoint)
    model = model_from_checkpoint(found, shape)

    with new_folder(out) as folder:
        model.save_pretrained(folder)
        model.config.layout.save(folder / VOCABULARY_FILE)
        PublishedRecord(values, list(found.model)).save(folder)
        for part, name in ((text_tokenizer, TEXT_FOLDER), (codec, AUDIO_FOLDER)):
            if part is not None:
                part.save_pretrained(folder / name)
        if codec_files is not None:
            codec_files.save(folder / AUDIO_FOLDER)
        if prompts is not None:
            save_prompts(prompts, folder)
    absent = [name for part, name in ((text_tokenizer, TEXT_FOLDER), (codec, AUDIO_FOLDER)) if part is None]
    return Imported(len(found.model), found.others, absent)


def export_published(model: Path, checkpoint: Path, config: Path) -> int:
    """Write the language model of a folder as a released checkpoint and its llm_config.yaml; how many tensors.

    What was imported comes back bit for bit: the same names in the same order, the same configuration values.

    Raises:
        UserError: The folder cannot be read, has no published form, or a file is there already.
    """
    for path in (checkpoint, config):
        require_free(path)
    model = located(model)
    if not model.is_dir():
        raise UserError(f"{model}: no such folder; give the folder of a model")
    loaded, record = UniAudioForConditionalGeneration.from_pretrained(model, dtype="auto"), PublishedRecord.load(model)
    values = published_values(loaded.config, str(model))
    if record is not None and describes(record.config, loaded.config):
        values = record.config
    with new_file(checkpoint) as weights, new_file(config) as settings:
        write_checkpoint(weights, loaded, record.keys if record is not None else ())
        settings.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return len(loaded.state_dict()) if record is None else len(record.keys)


def export_codec(folder: Path, files: Mapping[str, Path]) -> dict[str, int]:
    """Write the codec of a codec's or a model's folder as released files; how many tensors each has.

    Args:
        files: "codec", "scalar", "scalar_config" and, where it has a file of its own, "music_encoder" -> file to write.

    Raises:
        UserError: The folder holds no such codec, it has no published form, or a file is there already.
    """
    for path in files.values():
        require_free(path)
    folder = located(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of a model or of a codec")
    folder = folder / AUDIO_FOLDER if (folder / AUDIO_FOLDER).is_dir() else folder
    codec = load_reasoning_codec(folder)
    return write_codec(codec, PublishedFiles.load(folder), str(folder), files)
