"""The command line: `keys.py` declares every key once; `parser.py` reads arguments by that table; one file per command."""
