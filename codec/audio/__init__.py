"""Sound files of any format, rate and length: in as 24 kHz mono, out as 16-bit files."""
