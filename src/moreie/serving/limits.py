"""What the service takes at most, whatever it is set to."""

BODY_LIMIT = 20 * 2**20
BUFFER_LIMIT = 512 * 2**20
"""Bytes of all bodies that are held at a time."""
SMALL_BODY = 64 * 2**10
SMALL_WAIT = 1.0
"""Bytes and seconds: a body up to so many is taken, for so long, of a request that is refused."""
BATCH_LIMIT = 64
TEXT_LIMIT = 200_000
ID_LIMIT = 500
ARTICLES_LIMIT = 1_000
"""Articles written in one request."""
PIXELS_PER_BATCH = 64_000_000
CHARACTERS_PER_BATCH = 20_000
"""Posts are extracted together up to so many pixels and characters; a larger one comes alone."""
