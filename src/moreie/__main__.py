"""`python -m moreie`."""

from moreie.cli.app import app

if __name__ == "__main__":
    app()
