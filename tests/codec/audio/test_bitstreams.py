"""MP3, Ogg and FLAC: read to their true end, in blocks or whole, past tags and scraps; what is missing is noticed."""

import io

import numpy as np
import pytest
import soundfile
import torch

from codec.audio.waveform import audio_length, iterate_audio, load_audio
from codec.io.errors import UserError

FRAMES = 20_000
SOUND = np.concatenate(
    [1e-4 * np.random.default_rng(0).standard_normal(8_000), 0.2 * np.random.default_rng(1).standard_normal(12_000)]
)
TAG_1 = b"TAG" + bytes(125)
TAG_2 = b"ID3\4\0\0\0\0\2\0" + b"\xff\xfb\x90\x64" * 64  # its content looks like frames


def coded(sound=SOUND, rate=24_000, **kind):
    file = io.BytesIO()
    soundfile.write(file, sound, rate, **kind)
    return file.getvalue()


def read(path, content):
    """What is read, the same whole and in blocks, and as long as was said."""
    path.write_bytes(content)
    whole = load_audio(path)
    assert audio_length(path) == len(whole)
    torch.testing.assert_close(torch.cat(list(iterate_audio(path, 0.5))), whole, rtol=0, atol=2e-6)
    return whole


def refused(path, content):
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_audio(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


# ---- MP3 ---------------------------------------------------------------------------------------------------------

SLOT = 192  # bytes of the first frame, which tells of the others


@pytest.fixture(params=["VARIABLE", "CONSTANT"])
def mp3(request):
    made = coded(format="MP3", subtype="MPEG_LAYER_III", bitrate_mode=request.param, compression_level=0.1)
    assert b"Xing" in made[:SLOT] or b"Info" in made[:SLOT]
    return made


def test_an_mp3_that_does_not_say_how_long_it_is(tmp_path, mp3):
    path = tmp_path / "a.mp3"
    told, bare = read(path, mp3), read(path, mp3[SLOT:])
    assert len(told) == FRAMES and len(bare) % 576 == 0 and FRAMES <= len(bare) < FRAMES + 4 * 576
    torch.testing.assert_close(bare[1105 : 1105 + FRAMES], told)  # what encoder and decoder add stays in front


def test_tags_and_scraps_around_and_within_an_mp3(tmp_path, mp3):
    path, bare = tmp_path / "a.mp3", mp3[SLOT:]
    length = len(read(path, bare))
    for content, wanted in (
        (mp3 + TAG_1, FRAMES),
        (TAG_2 + mp3, FRAMES),
        (TAG_2 + bare + TAG_1, length),
        (mp3 + b"scraps " * 300, FRAMES),
        (mp3 + bytes(5_000), FRAMES),
        (b"scraps " * 20 + bare, length),
        (mp3 + mp3, 2 * FRAMES),
        (mp3 + TAG_1 + TAG_2 + mp3, 2 * FRAMES),
        (bare + mp3, length + FRAMES),
    ):
        assert len(read(path, content)) == wanted
    within = bare[: 2 * len(bare) // 3] + b"scraps " * 30 + bare[2 * len(bare) // 3 :]  # one frame is lost
    assert len(read(path, within)) in range(length - 2 * 576, length + 1)


def test_mp3_files_of_two_rates_joined(tmp_path, mp3):
    other = coded(np.stack([SOUND, SOUND / 2], 1), 48_000, format="MP3", subtype="MPEG_LAYER_III")
    assert len(read(tmp_path / "a.mp3", other + mp3)) == FRAMES // 2 + FRAMES


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_an_mp3_that_was_cut_short(tmp_path, mp3, keep):
    assert "cut short" in refused(tmp_path / "a.mp3", mp3[: int(len(mp3) * keep)])
    assert "cut short" in refused(tmp_path / "a.mp3", mp3[SLOT:-5])


def test_what_only_looks_like_a_frame_is_no_mp3(tmp_path):
    assert "is not a sound file" in refused(tmp_path / "a.mp3", b"\xff\xfb\x90\x64" + b"no frame follows " * 500)


# ---- Ogg ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["VORBIS", "OPUS"])
def ogg(request):
    return lambda sound=SOUND, rate=24_000: coded(sound, rate, format="OGG", subtype=request.param)


def pages(content):
    return [at for at in range(len(content)) if content[at : at + 4] == b"OggS"]


def test_every_link_of_a_chain_is_read(tmp_path, ogg):
    path, first, second = tmp_path / "a.ogg", ogg(), ogg(SOUND[:7_000])
    both = read(path, first + second + first)
    assert len(both) == 2 * FRAMES + 7_000
    torch.testing.assert_close(both[:FRAMES], read(path, first))
    torch.testing.assert_close(both[FRAMES:-FRAMES], read(path, second))
    assert len(read(path, first + ogg(SOUND, 48_000))) == FRAMES + FRAMES // 2
    for scraps in (b"scraps " * 30, bytes(70_000)):
        assert len(read(path, first + scraps)) == FRAMES


def test_an_ogg_file_that_lacks_something(tmp_path, ogg):
    path, whole = tmp_path / "a.ogg", ogg(np.tile(SOUND, 8))
    places = pages(whole)
    for keep in (len(whole) // 10, len(whole) // 2, len(whole) - 3, *places[-3:]):
        assert "cut short" in refused(path, whole[:keep])
    middle = len(places) // 2
    assert "missing" in refused(path, whole[: places[middle]] + whole[places[middle + 1] :])
    fault = refused(path, whole[:-400] + ogg())
    assert "missing" in fault or "cut short" in fault
    assert "cut short" in refused(path, ogg() + whole[:-400])
    last = places[-1] + 60
    assert "cut short" in refused(path, whole[:last] + bytes(len(whole) - last))


# ---- FLAC --------------------------------------------------------------------------------------------------------


def without_length(content):
    assert content[4] & 0x7F == 0  # the stream's description comes first
    return content[:21] + bytes([content[21] & 0xF0]) + bytes(4) + content[26:]


@pytest.mark.parametrize("frames", [1, 17, 4_096, 4_097, 20_000])
@pytest.mark.parametrize(("rate", "channels"), [(24_000, 1), (44_100, 2)])
def test_a_flac_file_of_a_pipe_is_read_whole(tmp_path, frames, rate, channels):
    sound = 0.2 * np.random.default_rng(frames).standard_normal((frames, channels))
    told, path = coded(sound, rate, format="FLAC"), tmp_path / "a.flac"
    wanted = read(path, told)
    for content in (without_length(told), without_length(told) + TAG_1, TAG_2 + without_length(told)):
        assert torch.equal(read(path, content), wanted)
    if frames > 17:
        assert "cut short" in refused(path, without_length(told)[:-7])


def test_a_flac_file_of_a_pipe_without_sound(tmp_path):
    told = coded(SOUND[:1], format="FLAC")
    frame = told.rfind(b"\xff\xf8")
    assert "holds no sample" in refused(tmp_path / "a.flac", without_length(told)[:frame])
