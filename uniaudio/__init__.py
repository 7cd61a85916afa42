"""UniAudio 2.0 from Python: a model with its tokenizers, the processor, released weights, training and evaluation.

    import uniaudio

    model = uniaudio.load()
    model.speak("three seven one").save("out.wav")
    print(model.transcribe("out.wav"))

Every name is imported when it is first used; importing the package loads neither PyTorch nor transformers.
"""

from typing import TYPE_CHECKING

from codec.lazy import lazy_names
from uniaudio.auto_classes import register_auto_classes

if TYPE_CHECKING:
    from codec.io.errors import UserError
    from codec.io.hub import local_folder
    from codec.tokenizer import load_tokenizer
    from uniaudio.completion import Sound
    from uniaudio.model import UniAudio, load
    from uniaudio.processor import UniAudioProcessor as Processor

    __version__: str

__all__ = [
    "EvaluationConfig",  # noqa: F822 (offered by __getattr__, from a floor above)
    "Processor",
    "Sound",
    "UniAudio",
    "UserError",
    "__version__",
    "evaluate",  # noqa: F822
    "load",
    "load_tokenizer",
    "local_folder",
    "train",  # noqa: F822
]

# `train` and `evaluate` lie on floors above this one, which nothing below imports: they are found by name when used.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Processor": ("uniaudio.processor", "UniAudioProcessor"),
        "Sound": ("uniaudio.completion", "Sound"),
        "UniAudio": ("uniaudio.model", "UniAudio"),
        "UserError": ("codec.io.errors", "UserError"),
        "__version__": ("uniaudio.version", "VERSION"),
        "EvaluationConfig": ("evaluation.config", "EvaluationConfig"),
        "evaluate": ("evaluation.run_suite", "run"),
        "load": ("uniaudio.model", "load"),
        "load_tokenizer": ("codec.tokenizer", "load_tokenizer"),
        "local_folder": ("codec.io.hub", "local_folder"),
        "train": ("training.recipe", "train"),
    },
)

register_auto_classes()
