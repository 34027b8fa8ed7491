"""The rows as files in benchmarks/results, by kind of machine: JSON, and Markdown and a picture made from it.

A run replaces the cases that it measured; the others stay as they were.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peers.table import verdict

RESULTS = Path(__file__).resolve().parents[1] / "results"
COLUMNS = (
    "",
    "best step s",
    "tokens/s",
    "TFLOP/s",
    "of bound",
    "median of bound",
    "peak MiB",
    "first step s",
    "ours faster",
    "others' CPU",
)


def machine_kind(threads: int) -> str:
    """A file name such as amd-epyc-family-26-avx512bf16-2-threads; no host's name."""
    from meshwright import _core
    from meshwright.machine import processor

    cpu = processor()
    words = f"{cpu.name} family {cpu.family} {_core.machine_facts()['isa']} {threads} threads"
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\(r\)|\(tm\)|\bcpu\b|@.*?(?= )", "", words.lower())).strip("-")


def recorded(file: Path) -> dict[str, Any]:
    """What a file of results holds; nothing where there is none."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


def cells(row: Mapping[str, Any]) -> list[str]:
    return [
        row["title"],
        f"{row['best_seconds']:.3f}",
        f"{row['tokens_per_second']:,.0f}",
        f"{row['tflops']:.3f}",
        f"{row['share_of_bound']:.1%}",
        f"{row['median_share_of_bound']:.1%}",
        f"{row['peak_bytes'] / 2**20:,.0f}",
        f"{row['first_step_seconds']:.1f}",
        f"{row['ours_faster']:.2f}x" if "ours_faster" in row else "",
        f"{row['others_share']:.0%}",
    ]


def told(case: Mapping[str, Any]) -> str:
    """One line under a case's table."""
    peaks = f"FMA peak {case['peak_flops'] / 1e9:,.0f} GFLOP/s (median {case['median_peak_flops'] / 1e9:,.0f})"
    found = verdict(case["rows"])
    if found is None:
        return f"{peaks}."
    return (
        f"{peaks}. Against the best peer: {found['faster']:.2f}x, {found['memory']:.2f} of the memory, {found['start']:.2f} of the start."
    )


def table(case: Mapping[str, Any]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    return "\n".join(lines + ["| " + " | ".join(cells(row)) + " |" for row in case["rows"].values()])


def markdown(kind: str, cases: Mapping[str, Any]) -> str:
    parts = [
        f"# A training step beside other frameworks: {kind}",
        "Made by `benchmarks/compare.py`; what the columns mean stands in [performance](../../docs/performance.md).",
        f"![share of the bound](peers-{kind}.png)",
    ]
    for name, case in cases.items():
        versions = ", ".join(f"{package} {version}" for package, version in case["versions"].items())
        steps = f"{case['date']}; {case['rounds']} rounds of {case['steps']} steps; {versions}"
        parts += [f"## {name}", table(case), told(case), f"{steps}."]
    return "\n\n".join(parts) + "\n"


def picture(kind: str, cases: Mapping[str, Any], file: Path) -> None:
    """Bars of the best step's share of the bound, a stroke at the median's."""
    from matplotlib.figure import Figure

    titles = list(dict.fromkeys(row["title"] for case in cases.values() for row in case["rows"].values()))
    figure = Figure(figsize=(8, 1 + 0.26 * sum(len(case["rows"]) + 1 for case in cases.values())), layout="constrained")
    axes = figure.subplots()
    place, ticks = 0.0, {}
    for name, case in cases.items():
        ticks[place + (len(case["rows"]) - 1) / 2] = name
        for row in case["rows"].values():
            color = f"C{titles.index(row['title'])}"
            axes.barh(place, row["share_of_bound"], 0.9, color=color, label=row["title"])
            axes.plot([row["median_share_of_bound"]] * 2, [place - 0.4, place + 0.4], color="black", linewidth=1)
            place += 1
        place += 1
    axes.set_yticks(list(ticks), ticks.values())
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the FMA bound (bar: best step, stroke: median)")
    axes.set_title(kind)
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(unique.values(), unique.keys(), fontsize="small", loc="lower right")
    figure.savefig(file, dpi=110, metadata={"Software": None})


def write(kind: str, cases: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Returns the Markdown file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"peers-{kind}.json"
    known = {**recorded(file), **cases}
    file.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    page = file.with_suffix(".md")
    page.write_text(markdown(kind, known), encoding="utf-8")
    picture(kind, known, file.with_suffix(".png"))
    return page
