"""What a process does that the fixture `launch` has forked: ``words``, as a person types them behind `vitrail`."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

from vitrail.cli.main import main

told: dict[str, Any] = globals()["told"]  # words, environment and output, which runpy has put there

multiprocessing.set_start_method(None, force=True)  # as in any program; not the one by which this process came
os.setsid()  # a process group of its own, as a terminal gives it
os.environ.update(told["environment"])
with Path(told["output"]).open("w") as file:
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
sys.argv = ["vitrail", *told["words"]]
main(told["words"])
