"""Other tools doing the package's work: one script each, run as a process of its own."""
