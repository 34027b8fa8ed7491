"""The shape of the tree: direction of includes, names, sizes, links, import time (docs/style.md)."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Room -> rooms that it may include; docs/style.md, "Direction of includes". A room not listed here does not exist.
BELOW_PASSES = {"base", "ir", "ops"}
MODEL_CODE = BELOW_PASSES | {"layers", "models", "optim"}
TOP = MODEL_CODE | {"mesh", "comm", "passes", "exec", "data", "config", "checkpoint"}
MAY_INCLUDE = {
    "base": set(),
    "ir": {"base"},
    "ops": {"base", "ir"},
    "layers": {"base", "ir", "ops"},
    "models": {"base", "ir", "ops", "layers"},
    "optim": {"base", "ir", "ops"},
    "mesh": {"base"},
    "passes": {"base", "ir", "ops", "mesh"},
    "comm": {"base", "mesh"},
    "exec": {"base", "ir", "ops", "comm"},
    "data": {"base"},
    "config": {"base", "mesh", "models"},
    "checkpoint": {"base", "mesh", "comm"},
    "planner": TOP,
    "session": TOP | {"planner"},
    "train": TOP | {"session", "planner"},
    "decode": TOP | {"session"},
    "post": TOP | {"session", "planner", "train", "decode"},
}
FORBIDDEN_NAMES = re.compile(r"(^|_)(utils?|helpers?|common|misc|v2)(_|$)", re.IGNORECASE)
UNFINISHED = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]) + r")\b")
MOST_LINES = 600


def tracked(*patterns):
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return sorted(path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file())


SOURCES = [path for path in tracked("*.cpp", "*.h", "*.py") if path.name != "_core.pyi"]


def test_includes_keep_the_direction():
    wrong = []
    for path in SOURCES:
        parts = path.relative_to(ROOT).parts
        if parts[0] != "cpp" or path.suffix == ".py":
            continue
        room = parts[1]
        if room not in MAY_INCLUDE:
            wrong.append(f"{path.relative_to(ROOT)}: {room} is not a room of docs/style.md")
            continue
        for line, included in re.findall(r'^\s*#\s*include\s+("([^"]+)")', path.read_text(), re.MULTILINE):
            other = included.split("/")[0]
            if "/" not in included or (other != room and other not in MAY_INCLUDE[room]):
                wrong.append(
                    f"{path.relative_to(ROOT)} includes {line}: {room} may include {', '.join(sorted(MAY_INCLUDE[room])) or 'no room'}"
                )
    assert not wrong, "\n".join(wrong)


def test_rooms_form_no_cycle():
    done = set()
    while left := MAY_INCLUDE.keys() - done:
        ready = {room for room in left if MAY_INCLUDE[room] <= done}
        assert ready, f"these rooms may include each other: {sorted(left)}"
        done |= ready


def test_files_stay_short():
    lengths = {path: path.read_text().count("\n") for path in SOURCES}
    long = [f"{path.relative_to(ROOT)}: {lines} lines" for path, lines in lengths.items() if lines > MOST_LINES]
    assert not long, f"split these (at most {MOST_LINES} lines, aim at 400):\n" + "\n".join(long)


def test_no_file_or_folder_without_a_name_of_its_own():
    wrong = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if any(FORBIDDEN_NAMES.search(p.split(".")[0]) for p in path.relative_to(ROOT).parts)
    ]
    assert not wrong, f"name these after what they hold: {wrong}"


def test_nothing_is_marked_unfinished():
    wrong = [str(path.relative_to(ROOT)) for path in SOURCES if UNFINISHED.search(path.read_text())]
    assert not wrong, f"finish it or leave it out: {wrong}"


def anchors(text):
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+\s+(.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", tracked("*.md"), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name) if name else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file.read_text())):
            broken.append(target)
    assert not broken, f"{page.relative_to(ROOT)} links to {broken}"


def cpu_seconds(code):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_import_is_quick():
    cpu_seconds("import meshwright")
    best = min(cpu_seconds("import meshwright") for _ in range(5))
    assert best < 0.3, f"import meshwright takes {best:.2f} s of CPU time; import heavy packages inside functions"


def test_import_pulls_in_nothing_heavy():
    heavy = ("rich", "matplotlib", "tokenizers", "torch", "transformers", "jinja2", "pyarrow")
    code = f"import sys, meshwright; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
