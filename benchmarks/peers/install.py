"""The peers' own virtual environment, build/peers, from requirements.txt: made once, and again when that file changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).resolve().parent / "requirements.txt"


def peers_python(folder: Path = ROOT / "build" / "peers") -> Path:
    """Its interpreter; SystemExit when something cannot be installed."""
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        print(f"installing the peers into {folder}", flush=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS)], check=True)
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"the peers could not be installed: {error}") from None
        stamp.write_text(wanted, encoding="utf-8")
    return python
