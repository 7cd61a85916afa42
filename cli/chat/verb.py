"""`uniaudio chat`: the interactive session in a terminal, or over a pipe."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import ModelOption, SeedOption, load_model
from codec.io.errors import UserError
from codec.io.files import require_free
from codec.io.shipped import STARTER_MODEL
from codec.io.terminal import complain, say, sentence_of

if TYPE_CHECKING:
    from cli.chat.session import Session

WELCOME = """UniAudio 2.0 starter, {model}. Type text, or a command; /help lists them, /quit ends.
Sound goes to {folder}."""
LONGEST_LINE = 1_000_000  # characters: many times what any model's context holds


def chat(
    model: ModelOption = Path(STARTER_MODEL),
    out: Annotated[Path, typer.Option("--out", help="Folder for the sound that is made.")] = Path("runs/chat"),
    seed: SeedOption = 0,
) -> None:
    """Talk to a model: text, /say, /listen, /describe, /music, /sound, /ask and more."""
    require_free(out / "say.wav", force=True)  # whether files can be written there, before the model is loaded
    from cli.chat.session import Session  # here, so that `uniaudio --help` need not load PyTorch

    session = Session(load_model(model), out, seed)
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        say(WELCOME.format(model=model, folder=out))
    failed = False
    for line in _typed_lines(sorted(Session.commands())) if at_terminal else _piped_lines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line in ("/quit", "/exit"):
            break
        failed |= not _respond(session, line, at_terminal)
    if failed and not at_terminal:
        raise typer.Exit(2)


def _respond(session: Session, line: str, at_terminal: bool) -> bool:
    """Carry out one line; whether that worked. Nothing that a line says or meets ends the session."""
    try:
        if len(line) > LONGEST_LINE:
            raise UserError(f"a line of more than {LONGEST_LINE} characters; give less at once")
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)  # as often as it is true
            for answer in session.respond(line):
                say(answer)
    except KeyboardInterrupt:
        if not at_terminal:
            raise
        say("(stopped; nothing was added to the session)")
    except BrokenPipeError:
        raise
    except (UserError, OSError, MemoryError, RuntimeError) as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        complain(sentence)
        return False
    return True


def _piped_lines() -> Iterator[str]:
    """Lines of standard input, of which no more is held than one line may have; any bytes pass as they are."""
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="surrogateescape")
    while line := sys.stdin.readline(LONGEST_LINE + 1):
        rest = line
        while not rest.endswith("\n") and len(rest) > LONGEST_LINE:
            rest = sys.stdin.readline(LONGEST_LINE + 1)
        yield line


def _typed_lines(commands: list[str]) -> Iterator[str]:
    """Lines typed at the prompt, with line editing and a history that outlives the session where readline exists."""
    try:
        import readline
    except ImportError:  # Windows: plain input without history
        readline = None
    history = None if readline is None else _history(readline)
    if readline is not None:
        readline.set_history_length(1000)
        readline.set_completer_delims(" ")
        readline.set_completer(lambda text, n: next(iter([w for w in commands if w.startswith(text)][n : n + 1]), None))
        readline.parse_and_bind("tab: complete")
    try:
        while True:
            try:
                yield input("> ")
            except KeyboardInterrupt:
                print()
            except EOFError:
                print()
                return
            except UnicodeDecodeError:
                complain("what was typed is not text in this terminal's encoding; type it again")
    finally:
        if history is not None:
            with contextlib.suppress(OSError):
                readline.write_history_file(history)


def _history(readline: ModuleType) -> Path | None:
    """Read the history of earlier sessions; where it is kept, None where it cannot be kept, which ends no chat."""
    try:
        history = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "uniaudio" / "history"
        history.parent.mkdir(parents=True, exist_ok=True)
        if history.exists():
            readline.read_history_file(history)
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: no home folder
        complain(f"what is typed is not kept for the next session ({error})")
        return None
    return history
