"""Mistakes and damaged files: each is a UserError that says what was expected, found and where; the process never dies of one."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import meshwright as mw
import numpy as np
import pytest
from tiny_models import CONFIG, VOCAB, make_batch, make_batches, make_model, make_trainer, weights_of, write_data

TENSORS = "model-00001-of-00001.safetensors"
HEAD = "lm_head.weight"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "saved"
    make_model().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of a model's folder to be damaged."""
    target = tmp_path / "model"
    target.mkdir()
    for file in saved.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def error_of(call) -> str:
    with pytest.raises(mw.UserError) as error:
        call()
    return str(error.value)


def read_header(path: Path) -> tuple[dict, bytes]:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write_header(path: Path, header: dict, data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


# ---- model folders ----


def test_missing_paths(tmp_path):
    assert "'nowhere', which does not exist" in error_of(lambda: mw.Model.from_pretrained("nowhere"))
    file = tmp_path / "file"
    file.write_text("x")
    assert "which is another file" in error_of(lambda: mw.Model.from_pretrained(file))
    assert "neither a config.json nor a checkpoint" in error_of(lambda: mw.Model.from_pretrained(tmp_path))
    (tmp_path / "config.json").write_text("{")
    assert "config.json" in error_of(lambda: mw.Model.from_pretrained(tmp_path))


def test_weights_that_are_not_there(folder):
    (folder / TENSORS).unlink()
    assert TENSORS in error_of(lambda: mw.Model.from_pretrained(folder))
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    assert "safetensors" in error_of(lambda: mw.Model.from_pretrained(folder))


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -4, -1])
def test_truncated_weights(folder, keep):
    path = folder / TENSORS
    path.write_bytes(path.read_bytes()[:keep])
    assert TENSORS in error_of(lambda: mw.Model.from_pretrained(folder))


@pytest.mark.parametrize(
    "offsets", [[-4, 60], [0, 2**62], [2**63 - 1, 2**63 + 3], [64, 0], [0, 2**64 - 1], [0, 4], [4, 8196], ["0", "64"], [0.5, 64], None]
)
def test_hostile_offsets(folder, offsets):
    header, data = read_header(folder / TENSORS)
    header[HEAD]["data_offsets"] = offsets
    write_header(folder / TENSORS, header, data)
    assert TENSORS in error_of(lambda: mw.Model.from_pretrained(folder))


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h[HEAD].update(shape=[2**40, 2**40]),
        lambda h: h[HEAD].update(shape=[-1, 32]),
        lambda h: h[HEAD].update(shape="big"),
        lambda h: h[HEAD].update(dtype="F33"),
        lambda h: h[HEAD].pop("dtype"),
        lambda h: h.update({HEAD: 7}),
        lambda h: h.update({HEAD: dict(h["model.norm.weight"])}),
    ],
)
def test_hostile_headers(folder, change):
    header, data = read_header(folder / TENSORS)
    change(header)
    write_header(folder / TENSORS, header, data)
    assert TENSORS in error_of(lambda: mw.Model.from_pretrained(folder))


def test_hostile_index(folder):
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"][HEAD] = "../../../etc/passwd"
    index.write_text(json.dumps(content))
    assert "model.safetensors.index.json" in error_of(lambda: mw.Model.from_pretrained(folder))


def test_all_wrong_tensors_are_listed(folder):
    header, data = read_header(folder / TENSORS)
    header["model.layers.0.mlp.gate_projj.weight"] = header.pop("model.layers.0.mlp.gate_proj.weight")
    header["model.norm.weight"]["shape"] = [4, 8]
    header["extra.bias"] = header.pop("model.layers.1.input_layernorm.weight")
    write_header(folder / TENSORS, header, data)
    (folder / "model.safetensors.index.json").unlink()
    (folder / TENSORS).rename(folder / "model.safetensors")
    message = error_of(lambda: mw.Model.from_pretrained(folder))
    for part in (
        "missing: model.layers.0.mlp.gate_proj.weight [64, 32]",
        "missing: model.layers.1.input_layernorm.weight [32]",
        "unknown: extra.bias [32]",
        "unknown: model.layers.0.mlp.gate_projj.weight [64, 32] (did you mean 'model.layers.0.mlp.gate_proj.weight'?)",
        "shape: model.norm.weight is [4, 8]; expected [32]",
    ):
        assert part in message, message


def test_a_tied_head_that_differs(tmp_path):
    model = make_model(tie_embeddings=True)
    model.save_pretrained(tmp_path / "tied")
    header, data = read_header(tmp_path / "tied" / TENSORS)
    (tmp_path / "tied" / "model.safetensors.index.json").unlink()
    (tmp_path / "tied" / TENSORS).unlink()
    embedding = weights_of(model)["model.embed_tokens.weight"]
    for head, equal in ((embedding, True), (embedding + 1, False)):
        with_head = {**header, HEAD: {"dtype": "F32", "shape": [VOCAB, 32], "data_offsets": [len(data), len(data) + head.nbytes]}}
        write_header(tmp_path / "tied" / "model.safetensors", with_head, data + head.tobytes())
        if equal:
            mw.Model.from_pretrained(tmp_path / "tied")
        else:
            message = error_of(lambda: mw.Model.from_pretrained(tmp_path / "tied"))
            assert "tie_word_embeddings is set, but lm_head.weight differs" in message


def test_configurations():
    assert "did you mean 'mini'" in error_of(lambda: mw.Model("minni"))
    assert "num_layers" in error_of(lambda: mw.Model("tiny", num_layer=3))
    assert "num_layers" in error_of(lambda: mw.Model("tiny", num_layers="three"))
    assert "num_layers" in error_of(lambda: mw.Model("tiny", num_layers=-1))
    assert "num_kv_heads" in error_of(lambda: make_model(num_kv_heads=3))
    assert "'family'" in error_of(lambda: mw.Model({key: value for key, value in CONFIG.items() if key != "family"}))
    assert "found int" in error_of(lambda: mw.Model(3))
    assert "float32 or bfloat16" in error_of(lambda: make_model(dtype="float16"))
    assert "float99" in error_of(lambda: make_model(dtype="float99"))


def test_state_dicts():
    model = make_model()
    whole = {name: weight.gather() for name, weight in model.state_dict().items()}
    less = {name: value for name, value in whole.items() if name != HEAD}
    assert f"missing ['{HEAD}'], unknown ['more']" in error_of(lambda: model.load_state_dict({**less, "more": whole[HEAD]}))
    message = error_of(lambda: model.load_state_dict({**whole, HEAD: whole[HEAD].T, "model.norm.weight": whole[HEAD]}))
    assert "lm_head.weight is (32, 128); expected (128, 32)" in message and "model.norm.weight is" in message
    before = weights_of(model)[HEAD]
    assert np.array_equal(before, whole[HEAD])


# ---- batches ----

GOOD = make_batch()


@pytest.mark.parametrize(
    ("batch", "part"),
    [
        ({}, "'input_ids'"),
        ({"input_idss": GOOD["input_ids"]}, "did you mean 'input_ids'"),
        ({"input_ids": GOOD["input_ids"][0]}, "input_ids: expected an array [batch, seq], found the shape [16]"),
        ({"input_ids": GOOD["input_ids"][None]}, "found the shape [1, 4, 16]"),
        ({"input_ids": GOOD["input_ids"].astype(np.float32)}, "input_ids: expected int32 or int64, found float32"),
        ({"input_ids": GOOD["input_ids"].astype(np.uint8)}, "input_ids: expected int32 or int64, found uint8"),
        ({"input_ids": np.array([["a", "b"]])}, "input_ids: expected int32 or int64"),
        ({"input_ids": np.zeros((0, 16), np.int64)}, "at least one row"),
        ({"input_ids": [[1, 2], [3]]}, "input_ids: expected an array [batch, seq] that NumPy can read"),
        ({"input_ids": np.full((2, 8), VOCAB)}, f"row 0, position 0: expected a token id in 0..{VOCAB - 1}"),
        ({"input_ids": np.full((2, 8), -1)}, "found -1"),
        ({"input_ids": np.full((2, 8), 2**40)}, f"found {2**40}"),
        ({**GOOD, "labels": np.full((4, 16), VOCAB)}, "labels, row 0, position 0"),
        ({**GOOD, "labels": np.full((4, 15), 1)}, "labels: expected the shape [4, 16] of input_ids, found [4, 15]"),
        ({**GOOD, "labels": np.full((4, 16), -100)}, "no token with a target"),
        ({**GOOD, "attention_mask": np.full((4, 16), 2)}, "attention_mask, row 0, position 0: expected 1"),
        ({**GOOD, "loss_weights": np.full((4, 16), np.nan, np.float32)}, "loss_weights, row 0, position 0: expected a finite weight"),
        ({**GOOD, "loss_weights": np.zeros((4, 16), np.float32)}, "a weight above 0"),
        ({**GOOD, "position_ids": np.full((4, 16), -1)}, "position_ids, row 0, position 0"),
        ({**GOOD, "segment_ids": np.tile([0, 1], (4, 8))}, "segment_ids, row 0, position 2"),
        ({"input_ids": np.zeros((2, 65), np.int64)}, "a sequence of 65 tokens is longer than the model allows: max_position_embeddings=64"),
    ],
)
def test_bad_batches(batch, part):
    trainer = make_trainer()
    before = weights_of(trainer.model)
    for call in (trainer.step, trainer.model.loss, trainer.model.loss_and_gradients, lambda batch: trainer.evaluate([batch])):
        assert part in error_of(lambda call=call: call(batch))
    assert trainer.steps_done == 0 and all(np.array_equal(value, before[name]) for name, value in weights_of(trainer.model).items())
    trainer.step(GOOD)


def test_far_positions_are_numbers_not_crashes():
    loss = make_model().loss({**GOOD, "position_ids": np.tile(np.arange(16) + 2**31 - 16, (4, 1))})
    assert np.isfinite(loss)


def test_sequences_beyond_the_model(tmp_path):
    model = make_model()
    data = write_data(tmp_path / "data")
    long = mw.TokenDataset(data, seq=128, batch=2)
    assert "a sequence of 128 tokens is longer" in error_of(lambda: make_trainer(model).fit(long, steps=1))
    assert "a sequence of 128 tokens is longer" in error_of(lambda: make_trainer(model).evaluate(long))
    assert "a sequence of 65 tokens is longer" in error_of(lambda: model(np.zeros((1, 65), np.int64)))
    message = error_of(lambda: mw.Generator(model).generate([[1] * 60], max_new_tokens=5))
    assert "need 65 positions" in message and "max_position_embeddings=64; at most 4 new tokens fit" in message
    message = error_of(lambda: mw.Generator(model).generate([[1] * 65], max_new_tokens=0))
    assert "at most 0 new tokens fit" in message


def test_data_of_a_larger_vocabulary(tmp_path):
    data = mw.TokenDataset(write_data(tmp_path / "data", vocab=VOCAB + 50), seq=32, batch=2)
    assert f"expected a token id in 0..{VOCAB - 1}" in error_of(lambda: make_trainer().fit(data, steps=50))


def test_what_does_not_divide():
    assert "a batch of 4 sequences does not divide into 3 microbatches; nearest that does: 3 or 6" in error_of(
        lambda: make_trainer(microbatches=3).step(GOOD)
    )
    assert "'data' of size 3 does not divide dim 'batch' of size 4" in error_of(lambda: make_trainer(mesh={"data": 3}).step(GOOD))
    assert "'tensor'" in error_of(lambda: make_trainer(make_model(mlp_dim=66), mesh={"tensor": 4}))
    assert "did you mean 'fsdp'" in error_of(lambda: make_trainer(mesh={"fspd": 2}))
    for size in (0, -2, "two", 1.5, None):
        assert "fsdp" in error_of(lambda size=size: make_trainer(mesh={"fsdp": size}))
    assert "expected a Mesh, a dict" in error_of(lambda: make_trainer(mesh=4))


def test_trainer_settings():
    def wrong(**arguments):
        return error_of(lambda: make_trainer(**arguments))

    for name in ("log_every", "save_every", "eval_every", "keep"):
        assert f"{name}: expected a whole number of at least 1, found 0" in wrong(**{name: 0})
    assert "microbatches=2 and gradient_accumulation=4 are two names of one count" in wrong(microbatches=2, gradient_accumulation=4)
    assert "microbatches" in wrong(microbatches=0)
    assert "microbatches" in wrong(microbatches=1.5)
    assert "did you mean 'minimal'" in wrong(remat="minimall")
    assert "matches nothing" in error_of(lambda: make_trainer(remat="custom:layers.*.nothing").step(GOOD))
    assert "zero7" in wrong(rules="zero7")
    assert "expected the tables compute, parameters, gradients, optimizer, found parameters" in wrong(rules={"parameters": []})
    assert "batch=data" in wrong(rules={"compute": ["batch=data"], "parameters": [], "gradients": [], "optimizer": []})
    assert "clip" in wrong(clip=-1.0)
    assert "dtype" in wrong(dtype="int32")
    for steps in (0, -1, 2.5, "ten"):
        assert "steps" in error_of(lambda steps=steps: make_trainer().fit([GOOD], steps=steps))
    assert "gave no batch" in error_of(lambda: make_trainer().fit([], steps=1))
    assert "gave no batch" in error_of(lambda: make_trainer().evaluate([]))
    one_way = iter([GOOD])
    assert "an iterator cannot be read twice" in error_of(lambda: make_trainer().fit(one_way, steps=2))


# ---- token shards ----


@pytest.mark.parametrize("at", [0, 8, 12, 16, 24, 32, 40, 56, 64, 100, -1])
def test_flipped_bytes_in_shards(tmp_path, at):
    data = write_data(tmp_path / "data")
    shard = sorted(data.glob("train*.tokens"))[0]
    content = bytearray(shard.read_bytes())
    content[at] ^= 0xFF
    shard.write_bytes(content)
    message = error_of(lambda: make_trainer().fit(mw.TokenDataset(data, seq=32, batch=8), steps=20))
    assert shard.name in message


@pytest.mark.parametrize("keep", [0, 10, 64, 80, -1])
def test_truncated_shards(tmp_path, keep):
    data = write_data(tmp_path / "data")
    shard = sorted(data.glob("train*.tokens"))[-1]
    shard.write_bytes(shard.read_bytes()[:keep])
    assert shard.name in error_of(lambda: mw.TokenDataset(data, seq=32, batch=8))


def test_an_empty_corpus(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    assert "empty" in error_of(lambda: mw.prepare([tmp_path / "empty.txt"], tmp_path / "data", vocab=300)).lower()
    assert "nowhere" in error_of(lambda: mw.TokenDataset(tmp_path / "nowhere"))


# ---- writing ----


def test_output_below_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in ("file", "file/run", "file/deep/run"):
        message = error_of(lambda place=place: make_trainer(output=tmp_path / place))
        assert "expected a folder" in message and f"{tmp_path / 'file'}' is a file" in message
        assert "file" in error_of(lambda place=place: make_trainer().save(tmp_path / place))
        assert "file" in error_of(lambda place=place: make_model().save_pretrained(tmp_path / place))
    assert (tmp_path / "file").read_text() == "x"


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years")
    for save in (make_trainer().save, make_model().save_pretrained):
        assert "thesis.tex" in error_of(lambda save=save: save(tmp_path / "mine"))
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years"


def test_a_device_is_no_folder():
    assert "/dev/full" in error_of(lambda: make_trainer(output="/dev/full/run"))
    assert "/dev/full" in error_of(lambda: make_model().save_pretrained("/dev/full"))


def run_limited(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs code in a process whose files may not grow above 40 kB: as a full disk, but for the signal, which is ignored."""
    limited = "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + textwrap.dedent(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run(
        [sys.executable, "-c", limited, *map(str, arguments)], capture_output=True, text=True, timeout=120, env=environment
    )


def test_a_full_disk_while_saving(tmp_path):
    result = run_limited(
        """
        import sys
        import meshwright as mw
        from tiny_models import make_batches, make_trainer
        trainer = make_trainer(output=sys.argv[1], save_every=2)
        trainer.fit(make_batches(), steps=2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
        for act in (lambda: trainer.fit(make_batches(), steps=8), lambda: trainer.save(sys.argv[1] + "-other")):
            try:
                act()
            except mw.UserError as error:
                print(error)
        assert trainer.steps_done < 8
        trainer.step(make_batches()[0])
        print("alive")
        """,
        tmp_path / "run",
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 3 and lines[-1] == "alive" and all("safetensors" in line and "File too large" in line for line in lines[:2])
    assert sorted(path.name for path in (tmp_path / "run").iterdir() if path.is_dir()) == ["step-00000002"]
    assert make_trainer(output=tmp_path / "run").steps_done == 2
    assert not (tmp_path / "run-other").exists()


def test_a_full_disk_while_saving_a_model(tmp_path):
    result = run_limited(
        """
        import sys
        import meshwright as mw
        from tiny_models import make_model
        model = make_model()
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
        try:
            model.save_pretrained(sys.argv[1])
        except mw.UserError as error:
            print(error)
        """,
        tmp_path / "saved",
    )
    assert result.returncode == 0, result.stderr
    assert "File too large" in result.stdout and list(tmp_path.iterdir()) == []


# ---- views and threads ----


def test_a_view_outlives_the_trainer_that_takes_the_model():
    model = make_model()
    view, start = model.state_dict()["model.embed_tokens.weight"].local()
    before = view.copy()
    make_trainer(model, mesh={"fsdp": 2}).step(GOOD)
    del model
    make_model(seed=1)
    assert np.array_equal(view, before) and start == [0, 0]
    with pytest.raises(mw.UserError, match="rank is 4; expected 0 to 0"):
        make_model().state_dict()[HEAD].local(4)


def test_a_model_of_two_trainers(tmp_path):
    model = make_model()
    first, second = make_trainer(model), make_trainer(model, mesh={"fsdp": 2})
    for act in (lambda: first.step(GOOD), lambda: first.fit([GOOD], steps=1), lambda: first.save(tmp_path / "a")):
        assert "another Trainer has taken the model" in error_of(act)
    assert second.step(GOOD).loss > 0


def test_one_call_at_a_time():
    """Calls share memory: a second one, from a callback or a thread, is an error and never a crash."""
    model = make_model()
    generator, found = mw.Generator(model), []

    calls = [
        lambda: model(GOOD["input_ids"]),
        lambda: mw.Generator(model).generate([[1]], max_new_tokens=40),
        lambda: make_trainer(model),
        lambda: weights_of(model),
    ]

    def reenter(index, token):
        found.extend(error_of(call) for call in calls)
        return False

    request = dict(prompt=[1], max_new_tokens=2, eos_ids=[], do_sample=False, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=0, id=0)
    generator._generator.generate([request], reenter)
    assert len(found) == 8 and all("the model is in use by another call" in message for message in found)

    stop, failed = threading.Event(), []

    def hammer():
        while not stop.is_set():
            try:
                model(GOOD["input_ids"])
            except mw.UserError as error:
                failed.append(str(error))

    thread = threading.Thread(target=hammer)
    thread.start()
    for _ in range(200):
        try:
            generator.generate([[1, 2, 3]] * 3, max_new_tokens=3)
        except mw.UserError as error:
            failed.append(str(error))
    stop.set()
    thread.join()
    assert all("one at a time" in message for message in failed)


def test_a_callback_that_raises_leaves_the_trainer_whole(tmp_path):
    def fail(trainer, step, metrics):
        if step == 2:
            raise ValueError("mine")

    trainer = make_trainer(output=tmp_path / "a", callbacks=[fail], save_every=1)
    with pytest.raises(ValueError, match="mine"):
        trainer.fit(make_batches(), steps=5)
    assert [path.name for path in (tmp_path / "a").glob("*step-*")] == ["step-00000001"]


def test_captures_and_options_of_generate():
    model = make_model()
    assert "matches no scope" in error_of(lambda: model.forward(GOOD["input_ids"], capture=["layers.9.*"]))
    generator = mw.Generator(model)

    def wrong(prompts=([1, 2],), **options):
        return error_of(lambda: generator.generate(list(prompts) if isinstance(prompts, tuple) else prompts, **options))

    assert "found one string" in wrong("Once")
    assert "no tokenizer" in wrong(("Once",))
    assert "a prompt is empty" in wrong(([],))
    assert f"token id {VOCAB} at position 1 of a prompt is outside the vocabulary of {VOCAB}" in wrong(([1, VOCAB],))
    assert f"token id {2**40}" in wrong(([2**40],))
    assert "token id -1" in wrong(([-1],))
    assert "whole numbers as token ids, found 1.5" in wrong(([1.5],))
    assert "strings or lists of token ids" in wrong(([1], "two"))
    assert "an integer array [batch, seq]" in wrong(np.zeros((2, 3)))
    assert "attention_mask has the shape" in wrong(np.ones((2, 3), np.int64), attention_mask=np.ones((2, 2)))
    assert "a prompt is empty" in wrong(np.ones((2, 3), np.int64), attention_mask=np.zeros((2, 3)))
    for name, values in {
        "temperature": (-0.5, float("nan")),
        "top_k": (-1, 1.5),
        "top_p": (0.0, 1.5, float("nan")),
        "min_p": (-0.1, 1.1),
        "max_new_tokens": (-1, 2.5, "many"),
        "seed": (-1, 2**64, 0.5),
        "eos_token_id": ("x", VOCAB, [1, -1], 1.5),
        "stop_strings": ([""], [3]),
    }.items():
        for value in values:
            assert name in wrong(do_sample=True, **{name: value}), (name, value)
    assert "need a tokenizer" in wrong(stop_strings="x")
    assert generator.generate([]) == []
