"""Released files made small: in the form of the release, from seeds, and its fixtures in our terms."""
