"""Runs every check and test suite and ends in one line, `N passed, N failed`, that sums them.

A suite that dies, that cannot be built or that runs nothing counts as one failure; so does every skipped test. `--fast` leaves out the
sanitizer build and the slow tests, `--only lint|cpp|asan|python` runs one part.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = Path(sysconfig.get_path("scripts"))


@dataclass
class Counts:
    passed: int = 0
    failed: int = 0


def call(*command: str | Path, capture: bool = False) -> tuple[int, str]:
    """Runs a command in the repository root with this environment's programs first; its output is shown, and returned if captured."""
    # Kernels choose by the CPU they find: an inherited OPENBLAS_CORETYPE must not decide what is tested.
    environment = {key: value for key, value in os.environ.items() if key != "OPENBLAS_CORETYPE"}
    environment["PATH"] = f"{SCRIPTS}{os.pathsep}{os.environ.get('PATH', '')}"
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE if capture else None,
        stderr=subprocess.STDOUT if capture else None,
        text=True,
        errors="replace",
    )
    lines = []
    if process.stdout is not None:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return process.wait(), "".join(lines)


def succeeds(*command: str | Path) -> Counts:
    """A check that passes or fails as a whole."""
    ok = call(*command)[0] == 0
    return Counts(int(ok), int(not ok))


def cpp_files() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "*.cpp", "*.h"], cwd=ROOT, capture_output=True, text=True)
    return [name for name in listed.stdout.split() if (ROOT / name).exists()]


def cpp_format() -> Counts:
    """Names the files that clang-format would change."""
    result = subprocess.run([SCRIPTS / "clang-format", "--dry-run", "-Werror", *cpp_files()], cwd=ROOT, capture_output=True, text=True)
    for name in sorted({line.split(":")[0] for line in result.stderr.splitlines() if "clang-format-violations" in line}):
        print(f"{name} is not formatted; `make format` does it")
    return Counts(int(result.returncode == 0), int(result.returncode != 0))


def build(preset: str, jobs: int) -> Counts:
    # Tests of an older build must never stand in for those that could not be built.
    (ROOT / "build" / preset / "meshwright_tests").unlink(missing_ok=True)
    if call("cmake", "--preset", preset, f"-DPython_EXECUTABLE={sys.executable}", "-DMESHWRIGHT_TESTS=ON", capture=True)[0] != 0:
        return Counts(0, 1)
    targets = ("--target", "meshwright_tests") if preset != "release" else ()
    return succeeds("cmake", "--build", "--preset", preset, "--parallel", str(jobs), *targets)


def install(jobs: int) -> Counts:
    """Installs the package from the release build's directory, so that the library is compiled once for both."""
    os.environ["CMAKE_BUILD_PARALLEL_LEVEL"] = str(jobs)
    # The tests stay on: this directory's cache is also that of the release preset.
    settings = {"build-dir": "build/release", "cmake.define.MESHWRIGHT_TESTS": "ON", "cmake.define.MESHWRIGHT_BENCHMARKS": "ON"}
    options = ("--quiet", "--no-build-isolation", *(f"--config-settings={name}={value}" for name, value in settings.items()))
    return succeeds(sys.executable, "-m", "pip", "install", *options, ".")


def cpp_tests(preset: str, *options: str) -> Counts:
    status, output = call(f"build/{preset}/meshwright_tests", *options, capture=True)
    return from_summary(status, output)


def from_summary(status: int, output: str) -> Counts:
    """Counts of a program whose output has a line `N passed, N failed`; without one, or with a status that contradicts it, one failure."""
    found = re.findall(r"^(\d+) passed, (\d+) failed$", output, re.MULTILINE)
    if not found:
        return Counts(0, 1)
    counts = Counts(int(found[-1][0]), int(found[-1][1]))
    if counts.passed + counts.failed == 0 or (status != 0 and counts.failed == 0):
        counts.failed += 1
    return counts


def python_tests(fast: bool) -> Counts:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        marks = ("-m", "not slow") if fast else ()
        # Not from the sources: what is tested is the installed package.
        status, _ = call(sys.executable, "-m", "pytest", "-q", "-ra", "--durations=10", f"--junitxml={report}", *marks, "tests")
        return from_junit(status, report)


def from_junit(status: int, report: Path) -> Counts:
    """Counts of a pytest report; errors and skipped tests are failures, and so is a run that died."""
    try:
        suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    except (OSError, ElementTree.ParseError):
        return Counts(0, 1)
    counts = Counts()
    for suite in suites:
        failed = sum(int(suite.get(kind, 0)) for kind in ("failures", "errors", "skipped"))
        counts.passed += int(suite.get("tests", 0)) - failed
        counts.failed += failed
    if counts.passed + counts.failed == 0 or (status != 0 and counts.failed == 0):
        counts.failed += 1
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--only", choices=["lint", "cpp", "asan", "python"])
    arguments = parser.parse_args()
    jobs = arguments.jobs
    suites = {
        "ruff format": ("lint", lambda: succeeds("ruff", "format", "--check", ".")),
        "ruff check": ("lint", lambda: succeeds("ruff", "check", ".")),
        "clang-format": ("lint", cpp_format),
        "mypy": ("lint", lambda: succeeds("mypy")),
        "build release": ("cpp", lambda: build("release", jobs)),
        "C++ tests": ("cpp", lambda: cpp_tests("release", *(("--fast",) if arguments.fast else ()))),
        "install": ("python", lambda: install(jobs)),
        "Python tests": ("python", lambda: python_tests(arguments.fast)),
        "build with ASan and UBSan": ("asan", lambda: build("asan", jobs)),
        "C++ fast tests under ASan and UBSan": ("asan", lambda: cpp_tests("asan", "--fast")),
    }
    total, table = Counts(), []
    for name, (part, run) in suites.items():
        if arguments.only not in (None, part) or (arguments.fast and part == "asan"):
            continue
        print(f"--- {name}", flush=True)
        start = time.monotonic()
        try:
            counts = run()
        except OSError as error:
            print(error)
            counts = Counts(0, 1)
        total.passed += counts.passed
        total.failed += counts.failed
        table.append(f"{name:<40} {counts.passed:>6} passed {counts.failed:>4} failed {time.monotonic() - start:>7.1f} s")
    print("\n".join(["---", *table]))
    print(f"{total.passed} passed, {total.failed} failed", flush=True)
    return int(total.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
