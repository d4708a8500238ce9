"""How good edits are, and what they tell of their sources: one measure a file."""
