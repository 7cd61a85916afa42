"""The engine: one model, its optimiser and DeepSpeed, on one process or many; its state on disk."""
