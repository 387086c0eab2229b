"""The history for other tools: JSON lines, Parquet, OpenTelemetry spans, MLflow."""
