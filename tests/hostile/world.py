"""What is damaged: one whole of everything that the command line reads, in miniature, made once in a test run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
import yaml

from auditory_sentences.corpora.read import read_corpora
from auditory_sentences.token_store import build_store
from codec.tokenizer import load_tokenizer
from tests.factories.release.lm import (
    config_values,
    published_state,
    save_released,
    text_tokenizer,
    tiny_config,
    write_yaml,
)
from tests.factories.uniaudio import tiny_uniaudio
from tests.hostile.trials import Trial, run
from training.engine import processes  # noqa: F401 (DeepSpeed takes seconds to import; every trial inherits it)

RATE = 24_000


@dataclass(frozen=True)
class World:
    """Paths of whole things; trials damage copies."""

    folder: Path

    def __getattr__(self, name: str) -> Path:
        return self.folder / name


def make_world(folder: Path) -> World:
    """model/ and its codec, corpus/ of three clips, store/, t.safetensors, run/ of a text model, released/."""
    torch.set_num_threads(1)  # a process that has run several of OpenMP's cannot be forked
    world = World(folder)
    uniaudio = tiny_uniaudio()
    uniaudio.save_pretrained(world.model)
    world.corpus.mkdir()
    rng = np.random.default_rng(0)
    rows = ["file,text"]
    for number, text in enumerate(("three seven one", "the red bird sings", "a slow piano melody")):
        soundfile.write(world.corpus / f"{number}.wav", 0.1 * rng.standard_normal(RATE // 2), RATE)
        rows.append(f"{number}.wav,{text}")
    (world.corpus / "t.csv").write_text("\n".join(rows) + "\n", "utf-8")
    (world.corpus / "c.yaml").write_text("kind: table\npath: t.csv\nsplit: test\nclip_kind: sound\n", "utf-8")
    codec = load_tokenizer(world.model / "audio_tokenizer")
    build_store(read_corpora([world.corpus / "c.yaml"]), codec, world.store)
    codec.encode(torch.from_numpy(0.1 * rng.standard_normal((1, RATE))).float())[0].save(world.folder / "t.safetensors")

    (world.folder / "text.txt").write_text("the cat sat\non the mat\nthree seven one\n", "utf-8")
    recipe = {
        "kind": "text_model", "out": str(world.run), "steps": 2, "texts": [str(world.folder / "text.txt")],
        "tokenizer": str(world.model / "text_tokenizer"), "layers": 1, "width": 16, "heads": 2, "kv_heads": 1,
        "mlp": 16, "context": 16, "batch": 2, "log_every": 1, "save_every": 1,
    }  # fmt: skip
    (world.folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), "utf-8")
    trained = run(Trial("", ["train", str(world.folder / "recipe.yaml")]), folder)  # apart: gloo's threads do not fork
    assert trained.status == 0, trained.err

    world.released.mkdir()
    tokenizer = text_tokenizer()
    save_released(world.released / "lm.pt", published_state(tiny_config(tokenizer)))
    write_yaml(world.released / "llm_config.yaml", config_values(tokenizer))
    (world.folder / "task.yaml").write_text(
        "task: sounds\nversion: 1\ntitle: Sounds\nabout: Sounds.\nrequest: reconstruction\ndata: {kind: sound}\n"
        "scores:\n  - {name: mel distance, metric: mel_distance, judge: waveform}\n",
        "utf-8",
    )
    (world.folder / "suite.yaml").write_text(
        f"suite: all\ntitle: All\nabout: All.\ntasks: [{world.folder / 'task.yaml'}]\n", "utf-8"
    )
    return world
