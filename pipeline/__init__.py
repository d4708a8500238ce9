"""What happens to plates: one file per stage, named after the stage."""
