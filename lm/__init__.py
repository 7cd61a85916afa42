"""The unified audio language model: vocabulary, rows, model, generation."""
