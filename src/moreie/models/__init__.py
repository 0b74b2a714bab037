"""Task models: input assembly, CRF, NER and relation experts, gate and mixture."""
