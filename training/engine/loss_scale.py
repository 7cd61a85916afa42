"""The scale of the loss in float16, whose smallest gradients would else be zero (Micikevicius et al. 2018, §3.2)."""

from __future__ import annotations

import json

from codec.io.errors import UserError
from codec.io.reading import load_json

FIRST, LEAST, MOST = 2.0**16, 2.0**-8, 2.0**24
GROWS_AFTER = 2000  # updates without an overflow


class LossScale:
    """What a loss is multiplied by before its gradients are computed, and these are divided by afterwards.

    An update whose gradients overflow is passed over and halves the scale; many good ones in a row double it.

    Attributes:
        value: The scale, a power of two, so that scaling rounds nothing.
        good: Updates since the last change.
        skipped: Updates that were passed over.
    """

    def __init__(self) -> None:
        self.value, self.good, self.skipped = FIRST, 0, 0

    def update(self, overflow: bool) -> bool:
        """After every update. Returns whether one more like it can be survived: below LEAST no scale will help."""
        if overflow:
            self.value, self.good, self.skipped = self.value / 2, 0, self.skipped + 1
        else:
            self.good += 1
            if self.good == GROWS_AFTER:
                self.value, self.good = min(2 * self.value, MOST), 0
        return self.value >= LEAST

    def dump(self) -> str:
        """Its state as one line, for `load`."""
        return json.dumps([self.value, self.good, self.skipped])

    def load(self, line: str, source: str) -> None:
        """Take the state that `dump` gave. Raises UserError naming `source` where it is another's."""
        match load_json(line, source):
            case [float() as value, int() as good, int() as skipped] if (
                LEAST <= value <= MOST and 0 <= good < GROWS_AFTER and skipped >= 0
            ):
                self.value, self.good, self.skipped = value, good, skipped
            case other:
                raise UserError(f"{source}: {other!r} is no state of a loss scale; use another checkpoint")
