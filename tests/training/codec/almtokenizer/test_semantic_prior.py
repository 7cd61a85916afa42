"""Codebooks start from the clusters of an expert's features."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from codec.almtokenizer.codec import ALMTokenizer
from codec.experts.base import load_expert
from codec.experts.config import ExpertConfig
from codec.io.errors import UserError
from tests.factories.one_stream.almtokenizer import SMALL
from training.codec.almtokenizer import semantic_prior
from training.codec.almtokenizer.semantic_prior import clusters, features_of_queries, set_codebooks

HOP = 320


@pytest.fixture
def tokenizer():
    torch.manual_seed(0)
    return ALMTokenizer(replace(SMALL, codes=4, codebook_dim=8)).eval()


def batches(count=3, clips=2):
    rng = torch.Generator().manual_seed(1)
    for window in (2, 5, 6)[:count]:
        frames = 12
        tones = torch.randint(1, 5, (clips, frames), generator=rng).repeat_interleave(window * HOP, dim=1) * 700.0
        wave = 0.3 * torch.sin(torch.cumsum(2 * torch.pi * tones / 24_000, dim=1))
        lengths = torch.tensor([wave.shape[1], wave.shape[1] // 2])
        wave[1, lengths[1] :] = 0
        yield wave, lengths, window


def test_clusters_find_what_is_apart():
    torch.manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5000.0]])  # the second axis is no louder than the first
    kinds = torch.arange(3).repeat(30)
    made = clusters(centres[kinds] + torch.randn(90, 2) * torch.tensor([0.1, 100.0]), 3)
    for kind in range(3):
        assert len(made[kinds == kind].unique()) == 1
    assert len(made.unique()) == 3


def test_a_code_is_the_mean_of_the_queries_of_a_cluster(tokenizer, monkeypatch):
    monkeypatch.setattr(semantic_prior, "features_of_queries", lambda at, expert, wave, lengths: expert(at, wave))
    found = semantic_prior.clusters
    monkeypatch.setattr(semantic_prior, "clusters", lambda v, n: v[:, 0].long() if v.shape[1] == 1 else found(v, n))
    torch.manual_seed(2)

    def hears(at, wave):  # an expert of four kinds, at random: (B, T, 1)
        frames = wave.shape[1] // at.samples_per_frame
        kinds = torch.randint(4, (len(wave), frames, 1)).float()
        kinds_heard.append(kinds)
        return kinds

    kinds_heard: list[torch.Tensor] = []
    set_codebooks(tokenizer, [hears], batches())
    kinds, queries = [], []
    for (wave, lengths, window), heard in zip(batches(), kinds_heard, strict=True):
        at = tokenizer.with_window(window)
        frames = -(-lengths // at.samples_per_frame)
        for clip in range(2):
            samples = int(frames[clip]) * at.samples_per_frame
            alone = at.queries_of(at.patchify(wave[clip : clip + 1, :samples]))
            queries.append(at.quantiser.project_in(alone)[0])
            kinds.append(heard[clip, : int(frames[clip]), 0])
    kinds, queries = torch.cat(kinds), torch.cat(queries)
    means = torch.stack([queries[kinds == kind].mean(0) for kind in range(4)])
    book = tokenizer.quantiser.layers[0]._codebook
    nearest = torch.cdist(means, book.embed[0])
    assert nearest.argmin(1).tolist() == [0, 1, 2, 3]
    assert nearest.diagonal().max() < 1e-3 * (nearest + 10 * torch.eye(4)).min()
    assert float(book.cluster_size.sum()) == pytest.approx(len(queries) / 3)  # as many as a batch has
    torch.testing.assert_close(book.embed_avg, book.embed * book.cluster_size[..., None])


@pytest.mark.parametrize("roles", [[], ["speech_text"], ["speech_text", "music"]])
def test_the_more_codebooks_the_nearer_and_it_can_be_repeated(tokenizer, roles):
    experts = [load_expert(ExpertConfig(role)) for role in roles]
    torch.manual_seed(3)
    set_codebooks(tokenizer, experts, batches())
    books = [level._codebook.embed.clone() for level in tokenizer.quantiser.layers]
    tokenizer.quantiser.straight_through, left, used = True, torch.zeros(3), set()
    for wave, _, window in batches():
        at = tokenizer.with_window(window)
        _, ids, distances = tokenizer.quantiser(at.queries_of(at.patchify(wave[:1])))
        left, used = left + distances.detach(), used | set(ids[..., 0].flatten().tolist())
    assert left[2] < left[1] < left[0] and len(used) > 1
    torch.manual_seed(3)
    set_codebooks(tokenizer, experts, batches())
    assert all(
        torch.equal(b, level._codebook.embed) for b, level in zip(books, tokenizer.quantiser.layers, strict=True)
    )


def test_features_are_those_of_the_time_of_a_query(tokenizer):
    """Of an expert of 50 Hz, at 75 patches a second."""
    expert = load_expert(ExpertConfig("speech_text"))
    wave = torch.zeros(1, 48_000)
    wave[0, 24_000:] = torch.randn(24_000)
    made = features_of_queries(tokenizer, expert, wave[:, : 25 * 1920], torch.tensor([48_000]))
    assert made.shape == (1, 25, expert.dims["speech_text"])
    loud = made[0].mean(1)
    assert loud[:11].max() < loud[14:].min()


def test_too_few_queries_are_said(tokenizer):
    large = ALMTokenizer(replace(SMALL, codes=200)).eval()
    with pytest.raises(UserError, match="1 batches have 18 queries, too few for 200 codes"):
        set_codebooks(large, [], batches(count=1))
