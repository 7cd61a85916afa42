"""Text ability: the tasks of lm-evaluation-harness, on the model and on the text model that it grew from."""
