"""Expert encoders: frozen feature extractors of a tokenizer."""
