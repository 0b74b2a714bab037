"""What goes wrong, said so that the reader can mend it: what, where, and what to do."""

from __future__ import annotations

from pathlib import Path


class MoreieError(ValueError):
    """Base of every error that `moreie` raises for its user's input."""


class DataFormatError(MoreieError):
    """A line of a data file does not follow its format.

    Attributes: `path`, `line` (1-based, None when the file as a whole is at fault) and `problem`.
    """

    def __init__(self, problem: str, path: Path | str, line: int | None = None):
        self.problem, self.path, self.line = problem, Path(path), line
        super().__init__(f"{path}{f':{line}' if line is not None else ''}: {problem}")


class ImageError(MoreieError):
    """A picture is missing, truncated, too large, or no picture at all."""


class KnowledgeCorpusError(MoreieError):
    """A knowledge corpus is absent, unfinished, damaged, or was made with another encoder or version."""


class CorpusBusyError(KnowledgeCorpusError):
    """Another change of the corpus is under way; later it may succeed."""


class SourceError(MoreieError):
    """A knowledge source (dump, article file, image manifest) cannot be read."""


class RecipeError(MoreieError):
    """A recipe names an unknown key, or a value outside its range."""


class CheckpointError(MoreieError):
    """A saved expert, gate or encoder is absent, incomplete, or does not fit its configuration."""


class EncoderError(MoreieError):
    """An encoder cannot be loaded, or is of the wrong kind for the job."""


class MissingExtraError(MoreieError):
    """A command needs an optional part of the package."""

    def __init__(self, extra: str, purpose: str):
        super().__init__(f"{purpose} needs an optional part: pip install 'moreie[{extra}]'")


class HubError(MoreieError):
    """A model cannot be published: no id of the hub's, or the hub is not reached or refuses."""
