"""Readers of knowledge sources: article files, MediaWiki dumps, image manifests."""
