"""The `uniaudio` command: its verbs and how it fails."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from cli import corpus, doctor, evaluate, generate, recipe, release, tokens, train, transform, understand
from cli.chat import verb
from codec.io.errors import UserError
from codec.io.terminal import run_program, say

UsageError = typer.BadParameter.__base__  # not public in typer, which carries its own copy of click

app = typer.Typer(
    name="uniaudio",
    help="Train, evaluate and talk to UniAudio 2.0: one model that understands and generates speech, sound and music.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(verb.chat)
app.command()(understand.transcribe)
app.command()(understand.describe)
app.command()(generate.speak)
app.command()(generate.compose)
for name in transform.VERBS:
    app.command(name)(transform.command(name))
app.command()(tokens.tokenize)
app.command()(tokens.detokenize)
app.add_typer(corpus.app, name="corpus")
app.command()(train.train)
app.add_typer(recipe.app, name="recipe")
app.command(context_settings=evaluate.AS_WRITTEN)(evaluate.evaluate)
app.command()(release.import_published)
app.command()(release.export_published)
app.command()(doctor.doctor)


def _show_version(asked: bool) -> None:
    if asked:
        say(f"uniaudio {version('uniaudio')}")
        raise typer.Exit


@app.callback()
def uniaudio(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train, evaluate and talk to UniAudio 2.0: one model that understands and generates speech, sound and music."""


def main() -> None:
    """Run the command line. Exit status: 0 done, 1 a check failed, 2 unusable input (one line says why), 130 Ctrl-C."""
    run_program("uniaudio", _run)


def _run() -> int:
    # Not through the command's own `main`, which has other ideas of Ctrl-C, closed pipes and how to show an error.
    try:
        with typer.main.get_command(app).make_context("uniaudio", sys.argv[1:]) as context:
            context.command.invoke(context)
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # not public either
            error.show()
            return error.exit_code
        verb = error.ctx.command_path if error.ctx else "uniaudio"
        raise UserError(f"{' '.join(error.format_message().split())} (`{verb} --help` says more)") from None
    return 0


if __name__ == "__main__":
    main()
