"""The front door: a model with its tokenizers, the processor, released weights."""
