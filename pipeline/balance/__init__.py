"""Characters and their shares: pure functions on texts and arrays."""
