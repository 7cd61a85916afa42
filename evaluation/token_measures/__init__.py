"""What can be said of tokens without decoding them: phones, labels, language modelling, use of the codes, robustness."""
