"""The notebooks run from their first cell to their last, without a network."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    # A cell that prints nothing where the stored one shows something has lost its point.
    stored = nbformat.read(path, as_version=4)
    for fresh, kept in zip(notebook.cells, stored.cells, strict=True):
        assert bool(fresh.get("outputs")) == bool(kept.get("outputs")), kept.source


def test_notebooks_are_in_reading_order_and_show_their_results():
    assert [path.name[:3] for path in NOTEBOOKS] == [f"{i + 1:02}_" for i in range(len(NOTEBOOKS))] and len(NOTEBOOKS) >= 2
    for path in NOTEBOOKS:
        text = path.read_text()
        assert '"output_type": "stream"' in text, f"{path.name}: stored without its outputs"
        assert "/tmp/" not in text and "/home/" not in text and '"error"' not in text
