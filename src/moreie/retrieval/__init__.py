"""From a post to its evidence: query analysis, text, caption and image retrievers, and the evidence cache."""
