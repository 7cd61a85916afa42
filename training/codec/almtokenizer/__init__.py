"""Training of an ALMTokenizer: the loop, its two objectives beside reconstruction, and where codebooks start."""
