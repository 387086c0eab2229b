"""The care of a store: gc, backup, and whether it is whole."""
