"""ALMTokenizer (Yang et al. 2025): learned queries gather the frames of a window of any length, and are quantised."""
