"""`meshwright COMMAND ...`. Exit status: 0 done, 2 a mistake of the user's (one message on stderr), 130 after Ctrl-C."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from meshwright import _core
from meshwright._core import UserError

OK, USER_ERROR, INTERRUPTED = 0, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit status."""
    try:
        status = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
        return status
    except UserError as error:
        return _fail(str(error))
    except BrokenPipeError:
        # The reader (`| head`) has left: nothing more to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes, os.PathLike)) else ""
        return _fail(f"{place}{error.strerror or error}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _run(arguments: list[str]) -> int:
    from meshwright.cli.document import command_help, help_text
    from meshwright.cli.parser import find_command, parse

    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(help_text())
        return OK if arguments else USER_ERROR
    if arguments[0] == "--version":
        from meshwright import __version__

        print(f"meshwright {__version__}")
        return OK
    command = find_command(arguments[0])
    rest = arguments[1:]
    if "--help" in rest or "-h" in rest:
        print(command_help(command))
        return OK
    config = parse(command, rest)
    if "ranks" in config.values:
        from meshwright.cli.launch import start_ranks

        start_ranks(arguments, config["ranks"])
    import_module(f"meshwright.cli.{command}").run(config)
    return OK


def _fail(message: str) -> int:
    from meshwright.ranks import report_failure

    print(f"meshwright: {report_failure()}{message}", file=sys.stderr, flush=True)
    _core.abort_ranks(USER_ERROR)  # of a run over processes, whose others wait for this one
    return USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
