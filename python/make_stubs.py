"""Makes python/meshwright/_core.pyi, the typed face of the extension, from its signatures: `make stubs`.

What pybind11-stubgen writes is made plain: whole numbers are `int`, containers say what type checkers in strict mode ask for.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pybind11_stubgen

STUB = Path(__file__).resolve().parent / "meshwright" / "_core.pyi"
PLAIN = (
    (r"typing\.SupportsInt \| typing\.SupportsIndex", "int"),
    (r"typing\.SupportsFloat \| typing\.SupportsIndex", "float"),
    (r"typing\.Annotated\[numpy\.typing\.ArrayLike, numpy\.(\w+)\]", r"numpy.typing.NDArray[numpy.\1]"),
    (r"numpy\.ndarray\b", "numpy.typing.NDArray[typing.Any]"),
    (r"\bdict\b(?!\[)", "dict[str, typing.Any]"),
    (r"\blist\b(?!\[)", "list[typing.Any]"),
    (r"\btuple\b(?!\[)", "tuple[typing.Any, ...]"),
)


def stub_text() -> str:
    """The stub of the extension that `import meshwright` finds, formatted."""
    with tempfile.TemporaryDirectory() as folder:
        logging.disable(logging.WARNING)
        with contextlib.redirect_stdout(io.StringIO()):
            pybind11_stubgen.main(["meshwright._core", "--output-dir", folder, "--exit-code"])
        logging.disable(logging.NOTSET)
        text = (Path(folder) / "meshwright" / "_core.pyi").read_text(encoding="utf-8")
    # Only signatures and annotations: prose keeps its words.
    parts = re.split(r'(""".*?""")', text, flags=re.DOTALL)
    for pattern, plain in PLAIN:
        parts[::2] = [re.sub(pattern, plain, part) for part in parts[::2]]
    text = "# Made by `make stubs`; change the bindings instead.\n" + "".join(parts)
    formatter = [sys.executable, "-m", "ruff", "format", "--quiet", "--stdin-filename", str(STUB), "-"]
    return subprocess.run(formatter, input=text, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    STUB.write_text(stub_text(), encoding="utf-8")
