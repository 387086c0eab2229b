"""A finished run as one file: writing it, and reading it with suspicion."""
