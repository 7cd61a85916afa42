"""Commands of a session that are verbs of the command line as well: `/denoise FILE` and its like, from one table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from auditory_sentences.builders.tasks import TASKS
from cli.chat import quoting
from cli.transform import VERBS
from uniaudio.requests import composition_task, description_task, speech_task

if TYPE_CHECKING:
    from cli.chat.session import Session

SESSION_VERBS = tuple(name for name in VERBS if name != "clone")  # which is /voice and then /say
WIDTH = 25  # of a usage in the list of commands


def verb_command(name: str) -> Callable[[Session, str], Iterator[str]]:
    """The command of a verb: its arguments are the verb's, its voice is the session's, and its switches come last."""
    verb = VERBS[name]
    parameters = inspect.signature(verb, eval_str=True).parameters.values()
    kinds = {p.name: get_args(p.annotation)[0] for p in parameters}
    switches = [key for key, kind in kinds.items() if kind is bool]
    asked = [key for key in kinds if key not in ("voice", *switches)]
    words = ["FILE" if kinds[key] is Path else "WORDS" for key in asked] + [f"[--{key}]" for key in switches]
    usage = " ".join((f"/{name}", *words))

    def command(session: Session, rest: str) -> Iterator[str]:
        given: dict[str, Any] = {}
        typed = rest
        for key in switches:
            rest, given[key] = quoting.flag(rest, f"--{key}")
        if len(asked) == 2:
            given |= zip(asked, quoting.file_and_words(rest, usage), strict=True)
        else:
            read = quoting.file if kinds[asked[0]] is Path else quoting.need
            given[asked[0]] = read(rest, usage)
        if "voice" in kinds:
            given["voice"] = session.need_voice().file
        yield from session.perform(f"/{name} {typed}", *verb(**given), several=name == "separate")

    said = (inspect.getdoc(verb) or "").splitlines()[0].rstrip(".")
    command.__doc__ = f"{usage:{WIDTH}}{said[0].lower()}{said[1:]}{': that of /voice' if 'voice' in kinds else ''}"
    return command


VERB_COMMANDS = {f"/{name}": verb_command(name) for name in SESSION_VERBS}


def commands_of_tasks() -> dict[str, str]:
    """Name of a task -> the command that asks for it, for those that have one."""
    found = {
        "asr": "/listen",
        description_task(): "/describe",
        description_task(music=True): "/describe FILE --music",
        "audio_qa": "/ask",
        speech_task("x")[0]: "/say",
        speech_task("x", "x")[0]: "/set voice, /say",
        composition_task("x")[0]: "/music",
        composition_task("x", sound=True)[0]: "/sound",
        VERBS["clone"]("x", Path("x"))[0]: "/voice, /say",
        VERBS["clone"]("x", Path("x"), style="x")[0]: "/voice, /set voice, /say",
    }
    for name in SESSION_VERBS:
        needed = [p for p in inspect.signature(VERBS[name]).parameters.values() if p.default is inspect.Parameter.empty]
        found[VERBS[name](*[Path("x")] * len(needed))[0]] = f"/{name}"
    found["dereverberation"] = "/denoise FILE --room"
    return found


def task_list(trained: tuple[str, ...]) -> Iterator[str]:
    """Lines that say which tasks a model was trained for and which there are besides, each with its command.

    Args:
        trained: Names of those that it was trained for; none where its folder does not say.
    """
    commands = commands_of_tasks()
    others = tuple(name for name in TASKS if name not in trained)
    rest = "not trained for, though it answers:" if trained else "the model does not say what it was trained for:"
    for heading, names in (("trained for:", trained), (rest, others)):
        if names:
            yield heading
        for name in names:
            yield f"  {name:28}{commands.get(name, '')}".rstrip()
