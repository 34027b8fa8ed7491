import copy
import json

import meshwright as mw
import numpy as np
import pytest
from meshwright import UserError
from meshwright._core import SplitWriter, adapt_batch

KEYS = {"input_ids", "targets", "segment_ids", "position_ids"}


def write_folder(folder, lengths, vocab=5000, shard_tokens=400):
    """A data folder whose token i is i; the validation split is the same stream."""
    folder.mkdir()
    splits = {}
    for name in ("train", "validation"):
        writer = SplitWriter(str(folder), name, vocab, shard_tokens)
        ends = np.cumsum(lengths)
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            writer.append(list(range(int(begin), int(end))))
            writer.end_document()
        splits[name] = {
            "num_tokens": int(ends[-1]),
            "num_documents": len(lengths),
            "text_bytes": 4 * int(ends[-1]),
            "shards": writer.finish(),
        }
    content = {"format": "meshwright-tokens", "version": 1, "vocab_size": vocab, "eos_id": None, "tokenizer": None, "splits": splits}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


LENGTHS = [5, 1, 170, 300, 2, 2, 640, 33, 129, 1, 1, 8]  # 1292 tokens


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "data", LENGTHS)


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def test_batches_and_sizes(folder):
    data = mw.TokenDataset(folder, seq=32, batch=3, seed=4)
    assert (data.vocab_size, data.num_tokens, data.num_documents, data.text_bytes) == (5000, 1292, 12, 5168)
    assert data.samples_per_epoch == 40 and data.tokens_per_epoch == 1280 and len(data) == 14
    batches = list(data)
    assert len(batches) == 14
    for step, batch in enumerate(batches):
        assert batch.keys() == KEYS and same(batch, data.batch(step))
        assert all(array.shape == (3, 32) and array.dtype == np.int32 for array in batch.values())
    inputs = np.concatenate([batch["input_ids"] for batch in batches]).ravel()[: 40 * 32]
    assert len(np.unique(inputs)) == 1280
    assert data.state_dict()["samples"] == 42 and data.state_dict()["epoch"] == 1
    assert len(list(data)) == 13 and data.state_dict()["samples"] == 81  # 42 to 80: the second epoch began inside a batch


def test_resume_at_every_step_is_exact(folder):
    def fresh():
        return mw.TokenDataset(folder, seq=32, batch=3, seed=4)

    data, states, batches = fresh(), [], []
    for _ in range(3):
        states.append(data.state_dict())
        for batch in data:
            batches.append(copy.deepcopy(batch))
            states.append(data.state_dict())
        states.pop()
    assert len(batches) == len(states) == 40
    for step, state in enumerate(states):
        resumed = mw.TokenDataset(folder, seq=32, batch=3, seed=99)
        resumed.load_state_dict(json.loads(json.dumps(state)))
        following = batches[step : step + 3]
        got = []
        while len(got) < len(following):
            for batch in resumed:
                got.append(batch)
                if len(got) == len(following):
                    break
        assert all(same(a, b) for a, b in zip(got, following, strict=True))
    other = mw.TokenDataset(folder, seq=32, batch=6, seed=4)  # another batch size goes on with the same samples
    other.load_state_dict(states[1])
    assert np.array_equal(next(iter(other))["input_ids"], np.concatenate([batches[1]["input_ids"], batches[2]["input_ids"]]))


def test_ranks_see_slices_of_the_global_batch(folder):
    data = mw.TokenDataset(folder, seq=32, batch=8, seed=4)
    for step in range(12):
        whole = data.batch(step)
        for ranks in (1, 2, 4):
            parts = [data.batch(step, first=rank * 8 // ranks, count=8 // ranks) for rank in range(ranks)]
            assert all(np.array_equal(np.concatenate([part[key] for part in parts]), whole[key]) for key in KEYS)
    rank1 = mw.TokenDataset(folder, seq=32, batch=8, seed=4).rows(first=4, count=4)
    for step, batch in enumerate(rank1):
        assert same(batch, data.batch(step, first=4, count=4))


def test_seeds_and_epochs_differ(folder):
    first, second = (mw.TokenDataset(folder, seq=32, batch=40, seed=seed) for seed in (0, 1))
    orders = [first.batch(0), first.batch(1), second.batch(0)]
    assert not any(same(a, b) for i, a in enumerate(orders) for b in orders[:i])
    assert same(first.batch(0), mw.TokenDataset(folder, seq=32, batch=40, seed=0).batch(0))


def test_validation_is_one_pass_in_order(folder):
    data = mw.TokenDataset(folder, split="validation", seq=100, batch=4, seed=4)
    for _ in range(2):  # every loop starts from the beginning
        batches = list(data)
        assert len(batches) == len(data) == 4
        joined = {key: np.concatenate([batch[key] for batch in batches]).ravel() for key in KEYS}
        assert np.array_equal(joined["input_ids"][:1292], np.arange(1292)) and data.tokens_per_epoch == 1292
        assert (joined["segment_ids"][1292:] == -1).all() and (joined["targets"][1292:] == -100).all()
        assert (joined["targets"] != -100).sum() == data.num_targets == 1292 - 12
    assert data.state_dict()["samples"] == 0


def test_mixture(tmp_path):
    a, b = write_folder(tmp_path / "a", [2000]), write_folder(tmp_path / "b", [500] * 4)
    data = mw.TokenDataset({str(a): 3.0, str(b): 1.0}, seq=20, batch=8)
    rows = np.concatenate([data.batch(step)["input_ids"] for step in range(25)])
    segments = np.concatenate([data.batch(step)["segment_ids"] for step in range(25)])
    assert rows.shape == (200, 20) and data.num_tokens == 4000 and (segments == 0).all()
    counts = np.unique(rows[:, 0], return_counts=True)[1]
    assert counts.sum() == 200 and counts.max() <= 3  # 150 of a's 100 chunks, 50 of b's
    with pytest.raises(UserError, match="documents: expected a data set of one folder"):
        data.documents()


def test_errors(folder, tmp_path):
    with pytest.raises(UserError, match="seq: expected at most the 1292 tokens that .*train has, found 1293"):
        mw.TokenDataset(folder, seq=1293)
    with pytest.raises(UserError, match="no split 'trian' .did you mean 'train'"):
        mw.TokenDataset(folder, split="trian", seq=4)
    with pytest.raises(UserError, match="expected a data folder with dataset.json, found nothing there"):
        mw.TokenDataset(tmp_path / "none")
    with pytest.raises(UserError, match="batch: expected at least 1 sequence, found 0"):
        mw.TokenDataset(folder, seq=4, batch=0)
    with pytest.raises(UserError, match="rows within 8, found step 0, rows 4..9"):
        mw.TokenDataset(folder, seq=4).batch(0, first=4, count=5)
    with pytest.raises(UserError, match="seed: expected 0 to"):
        mw.TokenDataset(folder, seq=4, seed=-1)
    with pytest.raises(UserError, match="weight above 0, found -1"):
        mw.TokenDataset({str(folder): -1.0}, seq=4)
    state = mw.TokenDataset(folder, seq=8).state_dict()
    with pytest.raises(UserError, match="expected rows of the same length as when it was saved .seq 8., found 4"):
        mw.TokenDataset(folder, seq=4).load_state_dict(state)
    with pytest.raises(UserError, match="expected the same data"):
        mw.TokenDataset(write_folder(tmp_path / "other", [1291]), seq=8).load_state_dict(state)
    with pytest.raises(UserError, match="found none of the name 'epoch'"):
        mw.TokenDataset(folder, seq=8).load_state_dict({"samples": 0})
    with pytest.raises(UserError, match="at least 0 for 'samples', found -1"):
        mw.TokenDataset(folder, seq=8).load_state_dict({**state, "samples": -1})


def test_damaged_and_hostile_shards(folder):
    shard = folder / "train-00000.tokens"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"train-00000.tokens, byte \d+: expected the file to end at byte \d+ .* it is truncated"):
        mw.TokenDataset(folder, seq=4)
    shard.write_bytes(whole[:-1] + b"\xff")
    data = mw.TokenDataset(folder, seq=4)
    with pytest.raises(UserError, match="the checksum of token block 0"):
        data.documents()
    with pytest.raises(UserError, match="the checksum of token block 0"):
        list(data)
    shard.unlink()
    with pytest.raises(UserError, match="train-00000.tokens: cannot .*No such file"):
        mw.TokenDataset(folder, seq=4)


def test_adapter_takes_numpy_torch_lists_and_dlpack():
    ids, mask = np.array([[1, 2, 3], [0, 4, 5]]), np.array([[1, 1, 1], [0, 1, 1]])
    batches = [{"input_ids": ids, "attention_mask": mask}, {"input_ids": ids.tolist(), "attention_mask": mask.tolist(), "labels": None}]
    batches.append({"input_ids": ids.astype(np.int32)[:, ::-1][:, ::-1], "attention_mask": mask.astype(bool)})

    class OnlyDlpack:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **arguments):
            return self.array.__dlpack__(**arguments)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    batches.append({"input_ids": OnlyDlpack(ids), "attention_mask": mask})
    try:
        import torch

        batches.append({"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)})
    except ImportError:
        pass
    for batch in batches:
        adapted = adapt_batch(batch, 6)
        assert adapted["targets"].tolist() == [[2, 3, -100], [-100, 5, -100]]
        assert adapted["position_ids"].tolist() == [[0, 1, 2], [0, 0, 1]]
        assert adapted["segment_ids"].tolist() == [[0, 0, 0], [-1, 0, 0]]
        assert adapted["loss_weights"].dtype == np.float32 and adapted["num_targets"] == 3 and adapted["weight_sum"] == 3.0


def test_adapter_errors():
    ids = np.array([[1, 2, 3]])
    for batch, part in (
        ({"input_id": ids}, "unknown key 'input_id' (did you mean 'input_ids'?)"),
        ({"labels": ids}, "expected the key 'input_ids', found none"),
        ({"input_ids": ids.astype(np.float32)}, "input_ids: expected int32 or int64, found float32"),
        ({"input_ids": ids + 3}, "input_ids, row 0, position 2: expected a token id in 0..5 (the vocabulary has 6), found 6"),
        ({"input_ids": ids[0]}, "expected an array [batch, seq], found the shape [3]"),
        ({"input_ids": 3}, "found the shape []"),
        ({"input_ids": [[1], [2, 3]]}, "input_ids: expected an array [batch, seq] that NumPy can read, found list"),
        ({"input_ids": ids, "labels": np.array([[1, 2]])}, "labels: expected the shape [1, 3] of input_ids, found [1, 2]"),
        ({"input_ids": np.array([["a", "b", "c"]])}, "input_ids: expected int32 or int64, found"),
    ):
        with pytest.raises(UserError) as error:
            adapt_batch(batch, 6)
        assert part in str(error.value)


def test_loader_batches_pass_the_adapter_unchanged(folder):
    batch = mw.TokenDataset(folder, seq=32, batch=3).batch(2)
    adapted = adapt_batch(batch, 5000)
    assert all(np.array_equal(adapted[key], batch[key]) for key in KEYS)
    assert adapted["num_targets"] == (batch["targets"] != -100).sum()
