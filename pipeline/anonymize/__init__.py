"""The same dataset with other plates, and the proofs that no old one is left."""
