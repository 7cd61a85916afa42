"""The template of a question about a recording to a text model: "USER: <recording> question ASSISTANT: answer".

The template is ReasoningCodec's (supervised training of the descriptive branch). In the place of the recording stand
embeddings, one for each descriptive frame.
"""

from __future__ import annotations

from dataclasses import dataclass

from lm.text_tokenizer import TextTokenizer


@dataclass(frozen=True)
class Dialogue:
    """A question about a recording and its answer."""

    # what is asked
    question: str
    # the true answer
    answer: str

    def text(self, recording: str) -> str:
        """The dialogue as plain text with words in the recording's place."""
        return f"USER: {recording}\n{self.question}\nASSISTANT: {self.answer}"

    def ids(self, tokenizer: TextTokenizer) -> tuple[list[int], list[int], list[int]]:
        """Text tokens before the recording (BOS first), between it and the answer, and of the answer (EOS last)."""
        before = [tokenizer.bos, *tokenizer.encode("USER:")]
        between = tokenizer.encode(f"\n{self.question}\nASSISTANT:")
        return before, between, [*tokenizer.encode(self.answer), tokenizer.eos]
