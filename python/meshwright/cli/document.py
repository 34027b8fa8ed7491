"""Help texts and docs/config.md, made from the tables: `python -m meshwright.cli.document > docs/config.md`."""

from __future__ import annotations

from meshwright.cli.foreign import SOURCES
from meshwright.cli.keys import COMMANDS, KEYS, OPEN_GROUPS, keys_of

_USAGE = "meshwright COMMAND [PATH or run.json] key=value ..."


def _key_lines(command: str) -> list[str]:
    lines = []
    for key in keys_of(command).values():
        limits = f" ({key.range_text()})" if key.range_text() else ""
        lines.append(f"  {key.name + '=' + key.default_text(command):<30} {key.help}{limits}")
    for group, commands in OPEN_GROUPS.items():
        if command in commands:
            lines.append(f"  {group + '.FIELD=value':<30} overrides a field of the {group}'s configuration")
    return lines


def help_text() -> str:
    """`meshwright --help`: the commands, then every key with its default, by command."""
    lines = [f"usage: {_USAGE}", "       `--key value` and `--key=value` mean the same as `key=value`", "", "commands:"]
    lines += [f"  {command.name:<12} {command.help}" for command in COMMANDS.values()]
    lines += ["", "options:", "  --help         this text; after a command, the keys of that command", "  --version      the version", ""]
    lines.append("keys and their defaults:")
    for name in COMMANDS:
        lines += ["", f"{name}:", *_key_lines(name)]
    return "\n".join(lines)


def command_help(command: str) -> str:
    """`meshwright COMMAND --help`."""
    about = COMMANDS[command]
    place = f" [{about.positional}]" if about.positional else ""
    file = " [run.json]" if about.run_file else ""
    return "\n".join(
        [
            f"usage: meshwright {command}{place}{file} key=value ...",
            f"       {about.help}",
            "",
            f"example: {about.example}",
            "",
            "keys and their defaults:",
        ]
        + _key_lines(command)
    )


def config_page() -> str:
    """docs/config.md."""
    lines = [
        "# Config keys",
        "",
        "Made by `python -m meshwright.cli.document > docs/config.md` from `python/meshwright/cli/keys.py`; change it there.",
        "",
        f"`{_USAGE}`: `--key value` and `--key=value` mean the same as `key=value`. A run file is a JSON object with the same keys (nested",
        'objects for dotted names: `{"mesh": {"fsdp": 4}}`); a key on the command line wins over the run file. `none` stands for no value.',
        "",
        "| command | what it does | example |",
        "|---|---|---|",
    ]
    lines += [f"| {command.name} | {command.help} | `{command.example}` |" for command in COMMANDS.values()]
    lines += ["", "| key | type | default | range | commands | meaning |", "|---|---|---|---|---|---|"]
    for key in KEYS:
        default = key.default_text("")
        special = [f"{name}: {key.default_text(name)}" for name in key.commands if name in key.defaults]
        cells = [
            f"`{key.name}`",
            key.kind.name,
            "; ".join([default, *special]),
            key.range_text(),
            ", ".join(key.commands),
            key.help.replace("|", "\\|"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    for group, commands in OPEN_GROUPS.items():
        lines.append(f"| `{group}.FIELD` | any |  |  | {', '.join(commands)} | overrides a field of the {group}'s configuration |")
    lines += [
        "",
        "## Names in other frameworks",
        "",
        "Giving one of these is an error that says our name.",
        "",
        "| theirs | of | ours |",
        "|---|---|---|",
    ]
    for source, names in SOURCES.items():
        lines += [f"| `{theirs}` | {source} | `{ours}` |" for theirs, ours in names.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(config_page(), end="")
