"""The test runner itself: a suite that dies or skips must never look green."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import run_all
from run_all import Counts, from_junit, from_summary


def test_summary_line_is_read():
    assert from_summary(0, "slow: x\n12 passed, 0 failed\n") == Counts(12, 0)
    assert from_summary(1, "10 passed, 2 failed\n") == Counts(10, 2)


def test_a_suite_that_dies_is_a_failure():
    assert from_summary(-11, "") == Counts(0, 1)
    assert from_summary(1, "12 passed, 0 failed\n==1==ERROR: LeakSanitizer\n") == Counts(12, 1)
    assert from_summary(0, "0 passed, 0 failed\n") == Counts(0, 1)


def test_skips_and_errors_are_failures(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text('<testsuites><testsuite tests="10" failures="1" errors="2" skipped="3"/></testsuites>')
    assert from_junit(1, report) == Counts(4, 6)
    report.write_text('<testsuites><testsuite tests="10" failures="0" errors="0" skipped="0"/></testsuites>')
    assert from_junit(0, report) == Counts(10, 0)
    assert from_junit(-9, report) == Counts(10, 1)
    report.write_text("<testsuites>")
    assert from_junit(0, report) == Counts(0, 1)


def test_a_build_removes_the_old_tests_and_asks_for_new_ones(tmp_path, monkeypatch):
    binary = tmp_path / "build" / "release" / "meshwright_tests"
    binary.parent.mkdir(parents=True)
    binary.write_text("old")
    asked = []
    monkeypatch.setattr(run_all, "ROOT", tmp_path)
    monkeypatch.setattr(run_all, "call", lambda *command, capture=False: (asked.append(command), (1, ""))[1])
    assert run_all.build("release", 1) == run_all.Counts(0, 1)
    assert not binary.exists() and "-DMESHWRIGHT_TESTS=ON" in asked[0]
    run_all.install(1)
    assert "--config-settings=cmake.define.MESHWRIGHT_TESTS=ON" in asked[-1]
