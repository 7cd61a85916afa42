"""X-Codec (Ye et al. 2024): acoustic and semantic branch around one residual quantiser."""
