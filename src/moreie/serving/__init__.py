"""The HTTP service and the evidence page over an `Extractor`."""
