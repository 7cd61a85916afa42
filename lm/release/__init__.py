"""The released language model: its files read into our modules, and written in their form again."""
