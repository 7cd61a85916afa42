"""Plain text files, one example on each line: what text models and the text-only share of a mixture are trained on."""

from __future__ import annotations

from codec.io.errors import UserError
from codec.io.reading import open_text


def read_lines(path: str) -> list[str]:
    """The lines of a UTF-8 text file that hold more than blanks, stripped.

    Raises:
        UserError: the file cannot be read, is not UTF-8, or has fewer than two lines of text.
    """
    with open_text(path, "file of text", "give UTF-8 files with one example a line") as file:
        try:
            lines = [part.strip() for line in file for part in line.splitlines() if part.strip()]
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not text in UTF-8 ({error.reason}); save it in that encoding") from error
    if len(lines) < 2:
        raise UserError(f"{path}: holds fewer than two lines of text; give UTF-8 files with one example a line")
    return lines
