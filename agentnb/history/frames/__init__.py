"""The history as DataFrames: columns as declared, filters pushed into SQL, rows by the fastest way that is there."""
