"""Generation of text and audio: static caches, true batches, a grammar of frames."""
