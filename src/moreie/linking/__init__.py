"""The article that a mention refers to, or none of them: candidates, and a score fitted to hyperlinks."""
