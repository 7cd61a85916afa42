"""Tasks by the name of a verb: what a request is made of.

Needs no PyTorch, so that the command line can refuse what it is given before a model is loaded.
"""

from __future__ import annotations

from codec.io.errors import UserError

MAX_TEXT_ROWS = 300  # longest answer in text, in rows (text ids)
MAX_SECONDS = 15.0  # longest audio where neither a person nor the model's folder says another length


def speech_task(text: str, voice: str = "") -> tuple[str, dict[str, str]]:
    """Task and contents of a request to speak.

    Args:
        text: Words to speak.
        voice: Description of the voice, in words; empty: the model's choice.

    Raises:
        UserError: The text is empty.
    """
    if not text.strip():
        raise UserError("there is nothing to say: the text is empty")
    return ("instruct_tts", {"caption": voice, "text": text}) if voice else ("tts", {"text": text})


def composition_task(description: str, sound: bool = False) -> tuple[str, dict[str, str]]:
    """Task and contents of a request for music, or for a sound.

    Raises:
        UserError: The description is empty.
    """
    if not description.strip():
        raise UserError("there is nothing to make: the description is empty")
    return "sound_generation" if sound else "music_generation", {"caption": description}


def description_task(music: bool = False) -> str:
    """Task of a request to describe a sound, or music."""
    return "music_caption" if music else "sound_caption"
