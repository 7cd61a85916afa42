"""Training: the engine, one visible loop per trainer, checkpoints, recipes."""
