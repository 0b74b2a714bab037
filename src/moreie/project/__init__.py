"""A user's own data made ready for training: what is in it, recipes for it, and what to run next."""
