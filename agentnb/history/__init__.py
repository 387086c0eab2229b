"""What happened: the store (SQLite, written by one writer per kernel), its artifacts, and both as DataFrames."""
