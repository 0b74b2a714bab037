"""The evidence page at `/`: hand-written files in `files/`, and what they need under `/page/`."""

from moreie.serving.page.routes import page_routes

__all__ = ["page_routes"]
