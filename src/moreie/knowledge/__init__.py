"""The knowledge corpus: sources → articles → passages, where they are kept, how they are built and searched."""
