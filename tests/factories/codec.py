"""A ReasoningCodec small enough for tests: mel experts, tiny branches, random weights from a seed."""

import torch

from codec.layers.config import QuantiserConfig
from codec.reasoning.codec import ReasoningCodec
from codec.reasoning.config import DescriptiveConfig, FlowConfig, ReasoningCodecConfig, ScalarConfig, StructuralConfig

QUANTISER = QuantiserConfig(codebook_size=64, codebook_dim=8, kmeans_init=False)
SMALL_SCALAR = ScalarConfig(
    num_samples=1,
    downsample_factors=(4, 4, 60),
    downsample_kernel_sizes=(8, 8, 60),
    upsample_factors=(60, 4, 4),
    upsample_kernel_sizes=(60, 8, 8),
    init_channel=4,
    res_kernel_size=3,
)
SMALL = ReasoningCodecConfig(
    descriptive=DescriptiveConfig(
        speech_dim=128, music_dim=120, dim=32, heads=2, rope_dims=8, blocks=1, quantiser=QUANTISER
    ),
    structural=StructuralConfig(dim=32, quantiser=QUANTISER),
    flow=FlowConfig(layers=1, heads=2, head_dim=8, window_frames=100, overlap_frames=20),
    scalar=SMALL_SCALAR,
    encode_window_blocks=30,
    encode_context_blocks=3,
    batch_blocks=60,
)


def small_codec(config: ReasoningCodecConfig = SMALL, seed: int = 0) -> ReasoningCodec:
    """In eval mode. FiLM, which starts as identity, is made to matter."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        codec = ReasoningCodec(config)
        for film in codec.structural.film.values():
            torch.nn.init.normal_(film.linear.weight, std=0.2)
    return codec.eval()


def noise(num_samples: int, seed: int = 0) -> torch.Tensor:
    """(num_samples,) of coloured noise whose loudness changes."""
    generator = torch.Generator().manual_seed(seed)
    white = torch.randn(num_samples, generator=generator)
    swell = 0.05 + 0.2 * torch.sin(torch.arange(num_samples) / 3000.0 + seed) ** 2
    return torch.cumsum(white * swell, 0).sub(torch.cumsum(white * swell, 0).mean()) / 60 + white * swell
