"""docs/ops.md and the registry of ops."""

from pathlib import Path

from meshwright import _core
from meshwright.cli.op_page import op_page

ROOT = Path(__file__).resolve().parents[2]


def test_op_page_is_current():
    assert (ROOT / "docs" / "ops.md").read_text() == op_page(), "run: python -m meshwright.cli.op_page > docs/ops.md"


def test_every_op_says_what_it_computes():
    ops = _core.ops()
    assert len({op["name"] for op in ops}) == len(ops) > 50
    assert not [op["name"] for op in ops if not op["doc"].strip()]
