"""Meshwright trains, post-trains and decodes large language models: a C++20 core scripted in Python."""

from meshwright._core import InternalError, UserError

__version__ = "0.1.0"
__all__ = ["InternalError", "UserError"]
