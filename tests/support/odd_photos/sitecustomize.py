"""Makes some photos odd in processes that have this folder on their path: see ``cluster_pass``.

A PNG file with text after its end, ``ODD <act> <marker>``, acts before it is decoded, but only once
if its marker is the path of a file, which is created then; ``-`` is never created. ``worker`` kills
the parent of the decoding process, ``engine`` that process, a number makes it sleep for seconds and
create ``<marker>.done``.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import IO, Any

from PIL import Image


def act(what: str, marker: str) -> None:
    if marker != "-":
        if os.path.exists(marker):
            return
        Path(marker).touch()
    if what == "worker":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    elif what == "engine":
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        time.sleep(float(what))
        if marker != "-":
            Path(marker + ".done").write_text("done")


def look(file: IO[bytes], name: str | bytes) -> Any:
    end = file.read().rpartition(b"ODD ")
    if end[1]:
        act(*end[2].decode().split())
    raise SyntaxError("for Pillow's own reader of PNG files")


Image.register_open("ODD", look, lambda prefix: prefix.startswith(b"\x89PNG"))
