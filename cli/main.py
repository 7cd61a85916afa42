"""The `uniaudio` command: its verbs and how it fails."""

from __future__ import annotations

import os
import sys
import warnings

import typer

from cli import chat, corpus, doctor, generate, published, tokens, train, understand
from codec.errors import UserError

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
app.command()(train.evaluate)
app.command()(published.import_published)
app.command()(published.export_published)
app.command()(doctor.doctor)


def main() -> None:
    """Run the command line. Exit status: 0 done, 1 a check failed, 2 unusable input (one line says why), 130 Ctrl-C."""
    warnings.formatwarning = lambda message, *_: f"uniaudio: {message}\n"  # what happened, without the line of code
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except UserError as error:
        _fail(f"uniaudio: {error}", 2)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except UsageError as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _fail("uniaudio: stopped", 130)
    except BrokenPipeError:
        # The reader (head, less) has gone; without this, Python complains once more while closing stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _fail(message: str, status: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
