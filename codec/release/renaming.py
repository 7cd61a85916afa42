"""Names of tensors in two conventions: one table, read in both directions."""

from __future__ import annotations

import re
from collections.abc import Sequence


class Renaming:
    """Pairs (published, ours) of names or, where they end in a dot, of beginnings of names; {} stands for a number.

    The first pair that fits counts. Both sides of a pair have their numbers in the same order.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._to_ours = [(_pattern(published), _template(ours)) for published, ours in pairs]
        self._to_published = [(_pattern(ours), _template(published)) for published, ours in pairs]

    def ours(self, name: str) -> str | None:
        """Our name of a published one; None where no pair fits."""
        return _renamed(name, self._to_ours)

    def published(self, name: str) -> str | None:
        """The published name of one of ours; None where no pair fits."""
        return _renamed(name, self._to_published)


def _pattern(name: str) -> re.Pattern[str]:
    end = "" if name.endswith(".") or not name else "$"
    return re.compile("^" + re.escape(name).replace(r"\{\}", r"(\d+)") + end)


def _template(name: str) -> list[str]:
    return name.split("{}")


def _renamed(name: str, rules: list[tuple[re.Pattern[str], list[str]]]) -> str | None:
    for pattern, template in rules:
        found = pattern.match(name)
        if found:
            numbers = (*found.groups(), "")
            return "".join(text + number for text, number in zip(template, numbers, strict=True)) + name[found.end() :]
    return None
