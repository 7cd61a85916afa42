"""`uniaudio chat`: the interactive session in a terminal, or over a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from cli.options import DEMO_MODEL, ModelOption, SeedOption, load_model
from codec.errors import UserError

WELCOME = """UniAudio 2.0 starter, {model}. Type text, or a command; /help lists them, /quit ends.
Sound goes to {folder}."""


def chat(
    model: ModelOption = DEMO_MODEL,
    out: Annotated[Path, typer.Option("--out", help="Folder for the sound that is made.")] = Path("runs/chat"),
    seed: SeedOption = 0,
) -> None:
    """Talk to a model: text, /say, /listen, /describe, /music, /sound, /ask and more."""
    from cli.session import Session  # here, so that `uniaudio --help` need not load PyTorch

    session = Session(load_model(model), out, seed)
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        print(WELCOME.format(model=model, folder=out))
    failed = False
    for line in _typed_lines(sorted(Session.commands())) if at_terminal else sys.stdin:
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line in ("/quit", "/exit"):
            break
        try:
            for said in session.respond(line):
                print(said, flush=True)
        except UserError as error:
            failed = True
            print(f"uniaudio: {error}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            print("(stopped; nothing was added to the session)", flush=True)
    if failed and not at_terminal:
        raise typer.Exit(2)


def _typed_lines(commands: list[str]) -> Iterator[str]:
    """Lines typed at the prompt, with line editing and a history that outlives the session where readline exists."""
    history = Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local/state")) / "uniaudio" / "history"
    try:
        import readline
    except ImportError:  # Windows: plain input without history
        readline = None
    if readline is not None:
        history.parent.mkdir(parents=True, exist_ok=True)
        if history.exists():
            readline.read_history_file(history)
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
    finally:
        if readline is not None:
            readline.write_history_file(history)
