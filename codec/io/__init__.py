"""Where everything here meets files, people and the system: bounded reading, safe writing, faults as sentences."""
