"""Solved examples of a person's own before a request: the sentence that few_shot.py builds of a corpus' clips."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from auditory_sentences.builders.catalogue import RELATIONS
from auditory_sentences.builders.tasks import Request, Task
from auditory_sentences.sentence import AuditorySentence, Segment
from codec.io.errors import UserError
from codec.io.strict import nearest
from codec.tokens import AudioTokens

ANSWER = "answer"  # what an example calls the answer, whatever fills it in training

# Name of a part, or ANSWER -> what it holds; of several answers, all of them in order.
Example = Mapping[str, str | AudioTokens | Sequence[str | AudioTokens]]


def example_parts(task: Task) -> dict[str, str]:
    """Name -> role of all that an example of the task has: what a request gives, by the same names, and the answer.

    Raises:
        UserError: Nothing is given in the task, so that there is nothing to show an example of.
    """
    given = {part.content: part.role for part in task.parts if not part.is_target}
    if not given:
        raise UserError(f"the task '{task.name}' is given nothing, so it takes no examples; leave them out")
    return {**given, ANSWER: next(part.role for part in task.parts if part.is_target)}


def has_several_answers(task: Task) -> bool:
    """Whether an example has a list of answers, as that of a separation."""
    return any(part.is_target and part.of and RELATIONS[part.of].all_of_them for part in task.parts)


def require_example(task: Task, example: Mapping[str, Any], where: str) -> None:
    """Check that an example has every part of the task, and no other.

    Args:
        task: That it is of.
        example: Its parts.
        where: It stands, for messages.

    Raises:
        UserError: It has not; the message names the parts that are needed.
    """
    needed = tuple(example_parts(task))
    wanted = f"an example of '{task.name}' has {', '.join(needed)}"
    for name in example:
        if name not in needed:
            raise UserError(f"{where}: there is no part '{name}'{nearest(name, needed)}; {wanted}")
    for name in needed:
        if name not in example:
            raise UserError(f"{where}: the part '{name}' is missing; {wanted}")
    answer = example[ANSWER]
    if isinstance(answer, list | tuple) and (not answer or not has_several_answers(task)):
        raise UserError(f"{where}: '{ANSWER}' is a list of {len(answer)}; {wanted}, one each")


def example_segments(task: Task, example: Example) -> tuple[Segment, ...]:
    """The segments of a solved example, in the task's order. Its parts are those of `require_example`."""
    segments = []
    for part in task.parts:
        content = example[ANSWER if part.is_target else part.content]
        contents = content if isinstance(content, list | tuple) else (content,)
        segments += [Segment(part.role, one) for one in contents]
    return tuple(segments)


def with_examples(asked: Request, examples: Iterable[Sequence[Segment]]) -> Request:
    """A request after solved examples: the prompt once, the examples, then what is asked (`Episodes.from_task`).

    Args:
        asked: As `tasks.request` makes it.
        examples: The segments of each, as `example_segments` makes them.
    """
    segments = asked.sentence.segments
    prompted = sum(segment.role == "prompt" for segment in segments)
    shown = tuple(segment for example in examples for segment in example)
    sentence = AuditorySentence(segments[:prompted] + shown + segments[prompted:], asked.sentence.name)
    return asked._replace(sentence=sentence)
