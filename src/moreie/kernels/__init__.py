"""Loops that are compiled when the package is installed: `*.cpp`, `build` compiles them and `library` loads them.

What they compute is defined where they are called from: `models.crf`, `encoders.attention`.
"""
