"""Dataset formats, one file each: what is annotated, and for anonymize the same with other texts."""
