"""python/meshwright/_core.pyi and the extension that it describes."""

import ast
import inspect
from pathlib import Path

from meshwright import _core

ROOT = Path(__file__).resolve().parents[2]
STUB = ROOT / "python" / "meshwright" / "_core.pyi"


def described(body):
    """Name -> the names of a class's members, or None for what is no class."""
    names = {}
    for node in body:
        if isinstance(node, ast.ClassDef):
            names[node.name] = set(described(node.body))
        elif isinstance(node, ast.FunctionDef):
            names[node.name] = None
    return names


def test_stub_names_everything_that_the_extension_has():
    stub = described(ast.parse(STUB.read_text()).body)
    there = {name: value for name, value in vars(_core).items() if not name.startswith("_")}
    assert stub.keys() == there.keys(), "run: make stubs (or, beside a built extension, python python/make_stubs.py)"
    for name, value in there.items():
        if inspect.isclass(value) and not issubclass(value, Exception):
            members = {member for member in vars(value) if not member.startswith("_")}
            assert {member for member in stub[name] if not member.startswith("_")} == members, f"{name}: run `make stubs`"


def test_stub_and_marker_ship_with_the_package():
    folder = Path(_core.__file__).resolve().parent
    if folder.name != "meshwright":  # used from the source tree, with the extension in a build folder
        folder = STUB.parent
    assert (folder / "_core.pyi").is_file() and (folder / "py.typed").is_file()
