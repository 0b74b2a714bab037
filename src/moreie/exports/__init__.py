"""Extractions in the forms of other tools; each module holds one form."""
