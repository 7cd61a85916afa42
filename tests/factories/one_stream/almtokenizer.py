"""ALMTokenizers small enough for tests, with random weights that matter."""

from __future__ import annotations

from dataclasses import replace

import torch

from codec.almtokenizer.codec import ALMTokenizer
from codec.almtokenizer.config import ALMTokenizerConfig, PatchesConfig, TransformerConfig

SMALL = ALMTokenizerConfig(
    patches=PatchesConfig(front_end="stft", fft_size=640, spectra=2, convolutions=1),
    dim=32,
    encoder=TransformerConfig(layers=2, heads=2, feed_forward=48, look_back=12, look_ahead=10),
    decoder=TransformerConfig(layers=2, heads=2, feed_forward=48, look_back=11, look_ahead=3),
    codes=64,
    codebook_dim=8,
    pass_patches=40,
)
ON_SAMPLES = replace(SMALL, patches=PatchesConfig(encoder_channels=2, decoder_channels=32))
MEAN_POOLED = replace(SMALL, downsampling="mean_pool")


def small_almtokenizer(config: ALMTokenizerConfig = SMALL, seed: int = 0) -> ALMTokenizer:
    """In eval mode, with codes."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        tokenizer = ALMTokenizer(config).eval()
        for parameter in (tokenizer.query, tokenizer.mask_token):
            if parameter is not None:
                torch.nn.init.normal_(parameter)
        for layer in (*tokenizer.encoder.layers, *tokenizer.decoder.layers):
            for part in (layer.qkv, layer.out, layer.up, layer.down):
                part.weight.mul_(2)  # so that what is far away counts
        # Queries of sound spread over all codes.
        project, loudness = (
            tokenizer.quantiser.project_in,
            torch.linspace(-6, 0, 64 * tokenizer.samples_per_frame).exp(),
        )
        queries = tokenizer.queries_of(tokenizer.patchify(loudness * torch.randn(4, len(loudness)))).flatten(0, 1)
        made = project(queries)
        project.weight.div_(made.std(0)[:, None])
        project.bias.sub_(made.mean(0)).div_(made.std(0))
        for number, level in enumerate(tokenizer.quantiser.layers):
            level._codebook.embed.normal_(std=0.7**number)
            level._codebook.initted.fill_(True)
    return tokenizer
