"""Networks only: nothing here imports from pipeline."""
