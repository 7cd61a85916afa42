"""Two evaluations, or several runs of one, beside each other: what differs, and how sure that is."""
