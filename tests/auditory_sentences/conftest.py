"""Sound files and their clips, for tests of corpora and token stores."""

import numpy as np
import pytest
import soundfile

from auditory_sentences.corpora.clip import Clip


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """24 clips of 0.01 to 2 s at three rates."""
    folder = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(0)
    made = []
    for i in range(24):
        path = folder / f"{i}.wav"
        rate = (8_000, 24_000, 44_100)[i % 3]
        seconds = 0.01 if i == 5 else rng.uniform(0.1, 2)
        soundfile.write(path, rng.uniform(-0.5, 0.5, (int(rate * seconds), 1 + i % 2)), rate)
        made.append(
            Clip(
                id=f"c{i}", path=str(path), kind=("speech", "music")[i % 2], split=("train", "test")[i % 4 == 0],
                text=f"wörds {i // 2}", caption="a caption", speaker=f"s{i % 3}",
                labels={"gender": ("male", "female")[i % 2], "pitch": "low"}, group="long" if i < 3 else "", position=i,
                parts=("c0", "c1") if i == 2 else (), licence="CC0-1.0", source="a test",
            )
        )  # fmt: skip
    return made


@pytest.fixture
def folder(tmp_path):
    """Three short sounds a.wav, b.flac, c.wav."""
    for i, name in enumerate(("a.wav", "b.flac", "c.wav")):
        soundfile.write(tmp_path / name, np.full(2_400 * (i + 1), 0.1), 24_000)
    return tmp_path
