"""The model card of a saved tokenizer: what somebody who finds the folder, or its page on the hub, must know."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from codec.tokens import SAMPLE_RATE

_WRITTEN = "<!-- written by save_pretrained, which writes it anew; without this line it is left alone -->"

_CARD = """\
---
library_name: uniaudio
pipeline_tag: audio-to-audio
tags: [audio-tokenizer, {kind}]
---
{mark}

# Audio tokenizer: {kind}

Waveforms at {rate} to tokens and back; see [UniAudio 2.0](https://arxiv.org/abs/2602.04683).

| | |
|---|---|
{rows}

```python
from codec.audio.waveform import load_audio, write_audio
from codec.tokenizer import load_tokenizer

codec = load_tokenizer("FOLDER")  # or owner/name on the hub
tokens = codec.encode(load_audio("in.wav"{given})[None])[0]
write_audio("out.wav", codec.decode([tokens])[0]{given})
```

Tokens carry the fingerprint and are decoded by the tokenizer that made them, by no other. What it was trained on, and
under which licence it may be used, its maker has to say here.
"""


def write_card(before: Path, path: Path, kind: str, facts: Mapping[str, str], sample_rate: int) -> None:
    """Write a card with a table of the facts to `path`, unless `before` is a card that somebody else wrote."""
    if before.exists() and _WRITTEN not in before.read_text(encoding="utf-8", errors="replace"):
        return
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    given = "" if sample_rate == SAMPLE_RATE else f", {sample_rate}"
    text = _CARD.format(kind=kind, mark=_WRITTEN, rows=rows, rate=f"{sample_rate / 1000:g} kHz", given=given)
    path.write_text(text, encoding="utf-8")
