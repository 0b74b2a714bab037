"""Showing an extraction to people: in the terminal, and as a self-contained HTML page."""
