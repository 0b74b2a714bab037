"""Where a corpus lives; the only code that knows an engine."""
