"""Published scalar autoencoders: names of their tensors."""

import pytest
import torch

from codec.io.errors import UserError
from codec.release.scalar import scalar_state_from_published


def test_published_activations_that_differ_are_refused():
    state = {f"encoder.{stage}.down_conv.activation.weight": torch.tensor([0.1 * stage]) for stage in (2, 3)}
    with pytest.raises(UserError, match="x.pth: encoder.3.*repeat this value, but here it differs"):
        scalar_state_from_published(state, "x.pth")
