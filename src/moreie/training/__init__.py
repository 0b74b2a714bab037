"""Recipes and training of experts and gates, on the `transformers` trainer."""
