"""What tests are made of: tiny models, tokenizers, stores and runs."""
