"""The `uniaudio` command: its verbs and how it fails."""

from __future__ import annotations

import typer

from cli import chat, corpus, doctor, evaluate, generate, published, tokens, train, understand
from codec.terminal import run_program

UsageError = typer.BadParameter.__base__  # not public in typer, which carries its own copy of click

app = typer.Typer(
    name="uniaudio",
    help="Train, evaluate and talk to UniAudio 2.0: one model that hears and makes speech, sound and music.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(chat.chat)
app.command()(understand.transcribe)
app.command()(understand.describe)
app.command()(generate.speak)
app.command()(generate.compose)
app.command()(tokens.tokenize)
app.command()(tokens.detokenize)
app.add_typer(corpus.app, name="corpus")
app.command()(train.train)
app.command(context_settings=evaluate.AS_WRITTEN)(evaluate.evaluate)
app.command()(published.import_published)
app.command()(published.export_published)
app.command()(doctor.doctor)


def main() -> None:
    """Run the command line. Exit status: 0 done, 1 a check failed, 2 unusable input (one line says why), 130 Ctrl-C."""
    run_program("uniaudio", _run)


def _run() -> int:
    try:
        return app(standalone_mode=False) or 0
    except typer.Exit as stop:
        return stop.exit_code
    except UsageError as error:
        error.show()
        return error.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None


if __name__ == "__main__":
    main()
