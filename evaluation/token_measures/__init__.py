"""What is measured of tokens without decoding them: phones, labels, predictability, use of codes, stability."""
