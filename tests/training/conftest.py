"""A training that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def train_until_killed() -> Callable[[Path, Path], list[str]]:
    """`train_until_killed(recipe, folder)` kills `moreie train` behind its first checkpoint under `folder`.

    Returns the command, to be given again.
    """

    def run(recipe: Path, folder: Path) -> list[str]:
        command = [sys.executable, "-m", "moreie", "train", str(recipe)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 240
        while not any(folder.glob("checkpoint-*/trainer_state.json")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return command

    return run
