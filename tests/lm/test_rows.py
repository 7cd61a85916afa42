"""Rows: framing, offsets, padding."""

import torch

from lm import rows
from tests.auditory_sentences.test_sentence import small_layout
from tests.factories.tokens import both


def test_frames_are_bracketed_by_one_id_over_all_codebooks():
    layout, codes = small_layout(), torch.arange(24).reshape(8, 3) % 8
    (_, descriptive), (_, structural) = layout.frames(both(codes, codes, 1, ""), "audio")
    low, high = layout.streams
    assert (descriptive[:, 0] == low.bos).all() and (descriptive[:, -1] == low.eos).all()
    assert torch.equal(descriptive[:, 1:-1], codes)
    assert torch.equal(structural[:, 1:-1], codes + low.size)
    assert (structural[:, 0] == high.bos + low.size).all() and (structural[:, -1] == high.eos + low.size).all()


def test_hidden_rows_keep_masks_and_length_and_lose_every_id():
    layout = small_layout()
    text = rows.text_rows([1, 2, 3], layout, is_target=False)
    gone = rows.drop_conditions(text, layout, stream=0)
    assert torch.equal(gone.mask, text.mask) and (gone.ids[:, -1] == layout.text_pad).all()
    audio = rows.audio_rows(torch.zeros(8, 2, dtype=torch.int64), is_target=True)
    gone = rows.drop_conditions(audio, layout, stream=1)
    assert (gone.ids[:, :8] == layout.pad(1)).all()


def test_collate_pads_right_with_inactive_rows():
    layout = small_layout()
    short, long = rows.text_rows([1], layout, True), rows.text_rows([1, 2, 3], layout, True)
    batch = rows.collate([short, long], layout)
    assert batch.ids.shape == (2, 3, 9) and not batch.mask[0, 1:].any() and batch.loss[0].tolist() == [1, 0, 0]
    assert torch.equal(batch.ids[1], long.ids)


def test_an_acoustic_prompt_has_its_own_first_and_last_frame():
    layout, codes = small_layout(), torch.full((8, 5), 3)
    ((stream, frames),) = layout.frames(both(codes, codes, 1, ""), "audio_prompt")
    assert stream == 1
    assert (frames[:, 0] == layout.audio_prompt_bos).all() and (frames[:, -1] == layout.audio_prompt_eos).all()
    assert (frames[:, 1:-1] == 3 + layout.offsets[1]).all()
