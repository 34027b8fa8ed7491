"""From text to training batches: `prepare` writes token shards, `TokenDataset` serves them, `Tokenizer` stands between."""

from meshwright.data.dataset import TokenDataset
from meshwright.data.preparation import PrepareReport, prepare
from meshwright.data.tokenizer import Tokenizer

__all__ = ["PrepareReport", "TokenDataset", "Tokenizer", "prepare"]
