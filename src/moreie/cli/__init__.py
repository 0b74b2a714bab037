"""The commands (`moreie.cli.app:app`). Each module holds one group; heavy imports wait until a command runs."""
