"""Flow matching: from noise to scalar latents under a conditioning (ReasoningCodec, decoder).

The path from noise z to latents x is y(t) = (1 - (1 - sigma) t) z + t x; the estimator learns its velocity, which is
x - (1 - sigma) z. Generation integrates it from t = 0 to 1. The first frames may be given as context: their latents
stand in channels of their own, and on the path they are put where they belong before every step.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from codec.layers.graph import Captured
from codec.layers.masks import length_mask
from codec.reasoning.config import FlowConfig
from codec.reasoning.flow_transformer import FlowTransformer


class FlowDecoder(nn.Module):
    """Conditional flow matching over latents (B, T, latent_dim) at 25 Hz.

    Args:
        config: sizes of the estimator and settings of the path
        latent_dim: channels of the scalar latents
        condition_dim: channels of the conditioning
    """

    latent_mean: Tensor  # (latent_dim,)
    latent_spread: Tensor  # (latent_dim,)

    def __init__(self, config: FlowConfig, latent_dim: int, condition_dim: int) -> None:
        super().__init__()
        self.config = config
        self.latent_dim = latent_dim
        self.estimator = FlowTransformer(
            dim_in=2 * latent_dim + condition_dim,
            dim_out=latent_dim,
            layers=config.layers,
            heads=config.heads,
            head_dim=config.head_dim,
            ff_mult=config.ff_mult,
            max_frames=config.max_frames,
        )
        # The flow runs on latents of zero mean and unit variance; (0, 1) is the published decoder, which knows neither.
        self.register_buffer("latent_mean", torch.zeros(latent_dim))
        self.register_buffer("latent_spread", torch.ones(latent_dim))
        self.decode_dtype: torch.dtype | None = None  # of the estimator in `solve`; None: see `ReasoningCodec`
        self._cast: list[FlowTransformer] = []  # the estimator in another type; in a list it is no module of this one
        self._cast_from: list[tuple[int, int]] = []  # which weights it was made of

    def normalise(self, latents: Tensor) -> Tensor:
        """Scalar latents (..., latent_dim) in the scale in which the flow runs."""
        return (latents - self.latent_mean) / self.latent_spread

    def denormalise(self, latents: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        return latents * self.latent_spread + self.latent_mean

    def velocity(
        self,
        y: Tensor,
        t: Tensor,
        context: Tensor,
        mu: Tensor,
        mask: Tensor | None,
        estimator: FlowTransformer | None = None,
    ) -> Tensor:
        """y, context (B, T, latent_dim), t (B,), mu (B, T, condition_dim), mask (B, T) -> (B, T, latent_dim).

        The estimator, its own if none is given, may be of a narrower type than the path.
        """
        estimator = estimator or self.estimator
        x = torch.cat([y, context, mu], dim=-1).to(estimator.output_offset.dtype)
        velocity = estimator(x, t, mask).to(y.dtype)
        if not self.config.gaussian_skip:
            return velocity
        # E[x - z | y] for independent standard normal x and z, where y = (1 - t) z + t x
        time = t[:, None, None].to(y.dtype)
        return velocity + (2 * time - 1) / (time.square() + (1 - time).square()) * y

    def loss(
        self,
        latents: Tensor,
        mu: Tensor,
        mask: Tensor,
        context_frames: Tensor,
        t: Tensor,
        noise: Tensor,
        metric: Tensor | None = None,
    ) -> Tensor:
        """Mean squared error of the velocity over the frames that are to be generated (a scalar).

        The random draws are arguments, so that a training step is a pure function of its seed.

        Args:
            latents: (B, T, latent_dim), normalised.
            mu: Conditioning (B, T, condition_dim).
            mask: (B, T) bool, the clip's frames.
            context_frames: (B,) int, number of leading frames that are given as context.
            t: (B,) in [0, 1], see `sample_times`.
            noise: (B, T, latent_dim).
            metric: (latent_dim, latent_dim), which an error is multiplied by before it is squared. The velocity that is
                best on average is the same for every regular one. None: the identity.
        """
        given = length_mask(context_frames, latents.shape[1])  # (B, T)
        path = 1.0 - self.config.sigma_min
        time = t[:, None, None]
        y = (1.0 - path * time) * noise + time * latents
        predicted = self.velocity(y, t, latents * given[:, :, None], mu, mask)
        weight = (mask & ~given)[:, :, None].to(latents.dtype)
        error = predicted - (latents - path * noise)
        if metric is not None:
            error = error @ metric
        error = error.square() * weight
        return error.sum() / (weight.sum() * self.latent_dim).clamp(min=1.0)

    def sample_times(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Flow times of a training batch, (batch,) in [0, 1]: uniform, or logit-normal (more of them in the middle).

        A share `start_share` of them is 0.
        """
        if self.config.time_sampling == "uniform":
            times = torch.rand(batch, generator=generator)
        else:
            times = torch.sigmoid(torch.randn(batch, generator=generator))
        if self.config.start_share:
            times = times * (torch.rand(batch, generator=generator) >= self.config.start_share)
        return times

    def _decode_estimator(self) -> FlowTransformer:
        """The estimator in the type in which it decodes: itself, or a copy, made anew when its weights change."""
        own = self.estimator.output_offset
        dtype = self.decode_dtype
        if dtype is None:
            dtype = torch.bfloat16 if own.is_cuda and torch.cuda.is_bf16_supported() else own.dtype
        if dtype == own.dtype:
            return self.estimator
        weights = [(weight.data_ptr(), weight._version) for weight in self.estimator.parameters()]
        if not self._cast or weights != self._cast_from or self._cast[0].output_offset.dtype != dtype:
            self._cast = [copy.deepcopy(self.estimator).to(dtype).requires_grad_(False)]
            self._cast_from = weights
        return self._cast[0]

    @torch.no_grad()
    def solve(
        self,
        noise: Tensor,
        mu: Tensor,
        mask: Tensor | None = None,
        context: Tensor | None = None,
        context_frames: int = 0,
        steps: int = 10,
        guidance: float = 1.5,
        solver: str = "euler",
        graph: bool | None = None,
    ) -> Tensor:
        """Latents (B, T, latent_dim), normalised, from noise of that shape.

        Args:
            noise: (B, T, latent_dim), the start of the path
            mu: conditioning (B, T, condition_dim)
            mask: (B, T) bool, False beyond each clip
            context: latents (B, T, latent_dim) whose first `context_frames` frames are given, or None
            steps: steps of the solver; midpoint evaluates the estimator twice a step
            guidance: 1 follows the conditioning, above 1 leans away from the unconditional velocity (twice the work)
            solver: "euler" or "midpoint"
            graph: whether the velocity is captured as a graph at its second evaluation; None: on a GPU. The path is the
                same

        Raises:
            ValueError: There is no such solver, or no step.
        """
        if steps < 1:
            raise ValueError(f"a flow needs at least one step, not {steps}")
        if solver not in ("euler", "midpoint"):
            raise ValueError(f"solver must be 'euler' or 'midpoint', not {solver!r}")
        context = torch.zeros_like(noise) if context is None else context.clone()
        context[:, context_frames:] = 0.0
        path = 1.0 - self.config.sigma_min
        estimator = self._decode_estimator()

        def on_path(y: Tensor, time: Tensor) -> Tensor:
            # The given frames are put where the path has them; elsewhere the state is left as it is.
            if context_frames == 0:
                return y
            head = (1.0 - path * time) * noise[:, :context_frames] + time * context[:, :context_frames]
            return torch.cat([head, y[:, context_frames:]], dim=1)

        def guided(y: Tensor, time: Tensor) -> Tensor:
            if guidance == 1.0:
                return self.velocity(y, time.expand(y.shape[0]), context, mu, mask, estimator)
            both_masks = None if mask is None else torch.cat([mask, mask])
            both = self.velocity(
                torch.cat([y, y]),
                time.expand(2 * y.shape[0]),
                torch.cat([context, context]),  # context stays in both halves: guidance is about the tokens only
                torch.cat([torch.zeros_like(mu), mu]),
                both_masks,
                estimator,
            )
            unconditional, conditional = both.chunk(2)
            return unconditional + guidance * (conditional - unconditional)

        evaluations = 2 * steps if solver == "midpoint" else steps
        graph = noise.is_cuda if graph is None else graph
        velocity = Captured(guided) if graph and evaluations > 2 else guided  # one runs plainly, one is captured
        times = torch.linspace(0.0, 1.0, steps + 1, device=noise.device, dtype=noise.dtype)
        y = noise
        for time, following in zip(times[:-1], times[1:], strict=True):
            step = following - time
            y = on_path(y, time)
            if solver == "euler":
                y = y + step * velocity(y, time)
            else:
                middle = time + step / 2
                y = y + step * velocity(on_path(y + step / 2 * velocity(y, time), middle), middle)
        if context_frames:
            y = torch.cat([context[:, :context_frames], y[:, context_frames:]], dim=1)
        return y


class ClipNoise:
    """Starting noise of one clip, drawn as the clip grows, from a generator of its own on the CPU.

    The same on every device, in every batch and in any pieces: the noise of a shorter clip is the beginning of that of
    a longer one.
    """

    def __init__(self, latent_dim: int, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._drawn = torch.empty(0, latent_dim)  # but not yet asked for

    def draw(self, num_frames: int) -> Tensor:
        """The next frames: (num_frames, latent_dim)."""
        held, latent_dim = self._drawn.shape
        # PyTorch draws normal numbers sixteen at a time; in other numbers, pieces would not add up to the whole.
        more = max(0, num_frames - held)
        fresh = torch.randn(more + -more % 16, latent_dim, generator=self._generator)
        drawn = torch.cat([self._drawn, fresh])
        self._drawn = drawn[num_frames:].clone()
        return drawn[:num_frames]


def clip_noise(num_frames: int, latent_dim: int, seed: int) -> Tensor:
    """Starting noise of a clip whose length is known, (num_frames, latent_dim): see ClipNoise."""
    return ClipNoise(latent_dim, seed).draw(num_frames)
