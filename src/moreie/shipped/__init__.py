"""Files that ship with the project: encoders, trained models, the demo corpus and its posts (see README.md there)."""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).parent
IMAGE_ENCODER = SHIPPED / "encoders" / "dinov2-small"
TEXT_ENCODER = SHIPPED / "encoders" / "minilm"
MODEL = SHIPPED / "models" / "default"
DEMO_CORPUS = SHIPPED / "demo" / "corpus"
DEMO_POSTS = SHIPPED / "demo" / "posts.jsonl"
DEMO_NOTES = SHIPPED / "demo" / "notes.json"
