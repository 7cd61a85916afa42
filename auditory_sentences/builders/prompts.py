"""The prompt bank: how tasks and questions are put into words."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from auditory_sentences.rng import KeyedRng
from codec.io.errors import UserError
from codec.io.reading import read_json
from codec.io.strict import parse
from codec.io.terminal import shown

ANY_LABEL = "*"  # the phrasings for labels that have none of their own
MAX_OPTIONS = 4  # named in a question; a list of fifty classes would drown the audio


@dataclass(frozen=True)
class PromptBank:
    """Phrasings of every task, of the questions about labels, and the values that each label can have."""

    # task -> instructions; one is drawn per example (UniAudio 2.0 draws from 5 to 25 per task)
    prompts: Mapping[str, Sequence[str]]
    # label -> open questions, with places {label} and {options}; "*" serves labels without their own
    questions: Mapping[str, Sequence[str]]
    # label -> yes-or-no questions, with places {label} and {value}; "*" serves labels without their own
    yes_no: Mapping[str, Sequence[str]]
    # label -> the values seen in the data, from which wrong options are drawn
    label_values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    # label -> what it is called in a prompt, where that is not the label itself
    names: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path | None = None) -> PromptBank:
        """Read a bank; without a path, the project's own.

        Raises:
            UserError: The file cannot be read as one; the message names the fault.
        """
        path = Path(path) if path else Path(__file__).with_name("prompts.json")
        read = parse(
            _BankFile,
            read_json(path, "prompt bank", "write it like the one that is installed, prompts.json"),
            str(path),
        )
        return cls(read.prompts, read.questions, read.yes_no, names=read.names)

    def with_label_values(self, label_values: Mapping[str, Sequence[str]]) -> PromptBank:
        """The same phrasings for the labels of some data."""
        return replace(self, label_values=label_values)

    def prompt(self, task: str, rng: KeyedRng) -> str:
        """One of the task's instructions.

        Raises:
            UserError: The bank has none.
        """
        if task not in self.prompts:
            raise UserError(f"the prompt bank has no prompts for '{task}'; add some under \"prompts\"")
        return rng.choice(self.prompts[task])

    def question(self, label: str, answer: str, rng: KeyedRng) -> str:
        """An open question about a label.

        Args:
            label: Asked about.
            answer: The right one, among the options that the question names.
            rng: Chooses phrasing and options.
        """
        phrasing = rng.choice(self.questions.get(label, self.questions[ANY_LABEL]))
        return phrasing.format(label=self.name(label), options=listed(self.options(label, answer, rng, MAX_OPTIONS)))

    def yes_no_question(self, label: str, truth: str, rng: KeyedRng) -> tuple[str, str]:
        """A question about the label and its answer, yes or no with equal chance.

        Where the data know one value only, the answer is yes.

        Args:
            label: Asked about.
            truth: Its value.
            rng: Chooses answer, phrasing and value.
        """
        others = [value for value in self.label_values.get(label, ()) if value != truth]
        value, answer = (rng.choice(others), "no") if others and rng.bernoulli(0.5) else (truth, "yes")
        phrasing = rng.choice(self.yes_no.get(label, self.yes_no[ANY_LABEL]))
        return phrasing.format(label=self.name(label), value=value), answer

    def name(self, label: str) -> str:
        """The label as a person would call it."""
        return self.names.get(label, label.replace("_", " "))

    def options(self, label: str, answer: str, rng: KeyedRng, count: int) -> list[str]:
        """Values of a label in random order.

        Args:
            label: Whose values are drawn.
            answer: The value that is among them whatever is drawn.
            rng: Draws the others.
            count: How many at most.
        """
        others = [value for value in self.label_values.get(label, ()) if value != answer]
        return rng.shuffled([answer, *rng.sample(others, count - 1)])


@dataclass(frozen=True)
class _BankFile:
    """What the file of a bank holds; see PromptBank."""

    # task -> instructions
    prompts: dict[str, tuple[str, ...]]
    # label -> open questions
    questions: dict[str, tuple[str, ...]]
    # label -> yes-or-no questions
    yes_no: dict[str, tuple[str, ...]]
    # label -> what it is called
    names: dict[str, str]

    def __post_init__(self) -> None:
        for key, places in (("prompts", None), ("questions", ("label", "options")), ("yes_no", ("label", "value"))):
            bank: Mapping[str, Sequence[str]] = getattr(self, key)
            if places and ANY_LABEL not in bank:
                raise UserError(f"'{key}' needs phrasings for {ANY_LABEL!r}, which serve labels without their own")
            for name, phrasings in bank.items():
                if not phrasings or not all(p.strip() for p in phrasings):
                    raise UserError(f"'{key}' -> {shown(name)} must list at least one text, none of them empty")
                if places:
                    for phrasing in phrasings:
                        _check_places(phrasing, places, f"'{key}' -> {shown(name)}")


def _check_places(phrasing: str, known: Sequence[str], where: str) -> None:
    """Raise UserError for a place in braces that is none of those that are filled in."""
    try:
        found = list(string.Formatter().parse(phrasing))
    except ValueError as error:
        raise UserError(f"{where}: {shown(phrasing)} cannot be filled in ({error}); correct the braces") from error
    for _, place, form, conversion in found:
        if place is not None and (place not in known or form or conversion):
            names = ", ".join(f"{{{name}}}" for name in known)
            raise UserError(f"{where}: {shown(phrasing)} has a place {{{place}}}; the places are {names}")


def listed(options: Sequence[str]) -> str:
    """'a, b or c'."""
    return " or ".join(filter(None, [", ".join(options[:-1]), options[-1]]))
