"""Puts the compiled kernels into the package; without a C++ compiler it is installed without them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelsHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        folder = Path(self.root) / "src" / "moreie" / "kernels"
        spec = importlib.util.spec_from_file_location("kernels_build", folder / "build.py")
        if spec is None or spec.loader is None:
            raise FileNotFoundError(folder / "build.py")
        build = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(build)
        for old in folder.glob("_kernels_*"):
            old.unlink()
        built = build.build(folder)
        if built:
            build_data["artifacts"].extend(f"/{path.relative_to(self.root).as_posix()}" for path in built)
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
        else:
            self.app.display_warning("no C++ compiler: moreie is installed without its compiled kernels")
