"""Letters, what CTC needs of them, and what is hidden while it learns."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codec.experts.music_encoder import MusicEncoder, MusicEncoderConfig
from training.codec.losses.ctc import BLANK, CTCConfig, CTCReader, Letters, frames_needed

SIZES = MusicEncoderConfig(dim=16, heads=2, feed_forward=32, layers=2, kernel=5, channels=4, mel_bands=16, hop=120)


@given(st.text(alphabet="ab c'", max_size=12))
def test_what_is_written_frame_by_frame_is_read_as_the_text(text):
    """Any path of CTC, with blanks between equal letters, spells its text in `frames_needed` frames or more."""
    letters = Letters(["abc it's"])
    ids = letters.ids(text)
    shortest: list[int] = []
    for number in ids:
        shortest += [BLANK, number] if shortest[-1:] == [number] else [number]
    longest = [n for number in ids for n in (number, number, BLANK)]
    assert letters.read(shortest) == letters.read(longest)
    assert letters.ids(letters.read(shortest)) == ids
    assert len(shortest) == frames_needed(ids)


def test_letters_are_those_of_the_texts():
    letters = Letters(["One 2!", "it's"])
    assert letters.characters == " 'einostw"
    assert letters.read(letters.ids("two zebras")) == "two es"


def test_the_loss_needs_no_more_than_the_frames_of_each_clip():
    """Silence behind a clip, which a batch adds, is not read."""
    torch.manual_seed(0)
    reader = CTCReader(MusicEncoder(SIZES), CTCConfig(depths=(1, -1), mask_share=0.0, bands=0), Letters(["ab"])).eval()
    waveforms, frames = 0.1 * torch.randn(2, 4800), torch.tensor([10, 4])
    read = reader.read(waveforms, frames)
    probabilities = reader.log_probabilities(reader.encoder.mel(waveforms))
    assert [p.shape for p in probabilities] == [(2, 10, 3), (2, 10, 3)]
    expected = [
        torch.nn.functional.ctc_loss(p.transpose(0, 1), torch.tensor([1, 2, 2]), frames, torch.tensor([2, 1]))
        for p in probabilities
    ]
    torch.testing.assert_close(reader(waveforms, frames, ["ab", "b"]), sum(expected) / 2)
    assert read[1] == reader.letters.read(probabilities[1][1, :4].argmax(-1).tolist())


@pytest.mark.parametrize(("share", "bands"), [(0.0, 0), (0.3, 0), (0.0, 6)])
def test_spans_and_a_band_are_hidden(share, bands):
    torch.manual_seed(1)
    reader = CTCReader(
        MusicEncoder(SIZES), CTCConfig(depths=(-1,), mask_share=share, span=3, bands=bands), Letters(["a"])
    )
    mel = 5 + torch.randn(8, 16, 4 * 30)
    hidden = reader._hidden(mel) != mel
    times, rows = hidden.all(1), hidden.all(2)  # (B, 4 T), (B, bands)
    assert torch.equal(hidden, times[:, None] | rows[:, :, None])
    assert (0.1 < times.float().mean() < 0.5) if share else not times.any()
    assert (0 < rows.sum(1).max() <= bands) if bands else not rows.any()
