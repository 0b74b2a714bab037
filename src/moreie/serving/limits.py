"""What the service takes at most."""

BODY_LIMIT = 20 * 2**20
BATCH_LIMIT = 64
TEXT_LIMIT = 200_000
