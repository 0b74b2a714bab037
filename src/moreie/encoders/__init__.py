"""Text and image encoders: from a hub id, a local folder, or the weights shipped with the project."""
