"""What a run leaves behind and shows: its settings, the progress display, metrics.jsonl, TensorBoard events and the loss curve."""

from meshwright.run_log.curve import plot_run
from meshwright.run_log.history import History, read_history
from meshwright.run_log.metrics import Metrics
from meshwright.run_log.recorder import RunRecorder
from meshwright.run_log.settings import read_settings, remember_settings

__all__ = ["History", "Metrics", "RunRecorder", "plot_run", "read_history", "read_settings", "remember_settings"]
