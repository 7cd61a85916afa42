"""Expert encoders: frozen feature extractors that a tokenizer listens through."""
