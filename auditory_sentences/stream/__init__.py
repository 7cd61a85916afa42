"""The stream of training sentences: mixed by weight, packed into rows."""
