"""Reinforcement learning of the codec's analyses: policy, loss, rewards (ReasoningCodec, GRPO)."""
