"""How good edits are, and how much of their sources' texts is left in them: one measure a file."""
