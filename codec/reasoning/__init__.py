"""ReasoningCodec (UniAudio 2.0 §3): descriptive and structural branch, flow decoder, scalar autoencoder."""
