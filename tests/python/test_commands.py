"""What the commands ask of the public Python surface, with recording doubles in its place: names, values, messages, exit status."""

import json
import math
from types import SimpleNamespace

import meshwright as mw
import numpy as np
import pytest
from meshwright.cli.main import main
from meshwright.run_log import read_settings


class Recording:
    """Stands for one name of the public surface: remembers its calls and answers with `answer`."""

    def __init__(self, answer):
        self.calls = []
        self.answer = answer

    def __call__(self, *arguments, **options):
        self.calls.append((arguments, options))
        return self.answer


@pytest.fixture
def surface(monkeypatch):
    model = SimpleNamespace(num_parameters=1234, tokenizer=None)
    trainer = SimpleNamespace(
        fit=Recording(None), evaluate=Recording(mw.Metrics(loss=2.0, perplexity=math.exp(2.0))), step=Recording(None), save=Recording(None)
    )
    doubles = SimpleNamespace(
        Model=Recording(model),
        Trainer=Recording(trainer),
        TokenDataset=Recording(SimpleNamespace(vocab_size=4096, tokenizer="its tokenizer")),
        Generator=Recording(SimpleNamespace(generate=Recording([" one", " two"]))),
        prepare=Recording(None),
        plan=Recording(SimpleNamespace(table=lambda: "a table", to_json=lambda: '{"fits": true}', explain=lambda after: f"after {after}")),
        doctor=Recording({"isa": "avx2", "warnings": ["huge pages are off"]}),
        bench=Recording({"seconds": 0.5, "kernel": "dot_avx2"}),
    )
    doubles.Model.from_pretrained = Recording(model)
    for name, double in vars(doubles).items():
        monkeypatch.setattr(mw, name, double, raising=False)
    doubles.model, doubles.trainer = model, trainer
    return doubles


def sizes_of(mesh):
    return {axis: size for axis, size in mesh.items() if size != 1}


def test_train_from_a_name(surface, tmp_path, capsys):
    output = tmp_path / "run"
    line = [
        "train",
        "model=mini",
        "data=d",
        "seq=64",
        "steps=7",
        f"output={output}",
        "lr=0.01",
        "model.num_layers=3",
        "mesh.fsdp=2",
        "clip=none",
    ]
    assert main(line) == 0
    assert surface.Model.calls == [(("mini",), {"seed": 0, "num_layers": 3, "vocab_size": 4096})]
    assert surface.model.tokenizer == "its tokenizer"
    splits = [(arguments[0], options["split"], options["seq"], options["batch"]) for arguments, options in surface.TokenDataset.calls]
    assert splits == [("d", "train", 64, 8), ("d", "validation", 64, 8)]
    (model,), options = surface.Trainer.calls[0]
    assert model is surface.model and options["optimizer"] == mw.AdamW(lr=0.01) and options["schedule"] == mw.WarmupCosine(0.1, 0.1)
    assert sizes_of(options["mesh"]) == {"fsdp": 2} and options["clip"] is None and options["output"] == str(output)
    assert options["reset_optimizer"] is False
    assert surface.trainer.fit.calls[0][1] == {"steps": 7}
    assert "from random weights, 1,234 parameters, vocabulary 4,096" in capsys.readouterr().err

    # Settings that nothing was saved with do not bind: they may have been a mistake.
    assert main([*line[:-1], "clip=0.5"]) == 0 and main(line) == 0
    (output / "step-00000007").mkdir()
    assert main(line + ["save_every=9"]) == 0
    assert read_settings(output)["save_every"] == 9
    assert main([*line[:-1], "clip=0.5", "seed=1"]) == 2
    shown = capsys.readouterr().err
    assert "clip: null there, 0.5 here" in shown and "seed: 0 there, 1 here" in shown and "save_every" not in shown


def test_the_run_file_of_a_run_repeats_it(surface, tmp_path):
    assert main(["train", "model=mini", "data=d", f"output={tmp_path}", "schedule=wsd", "optimizer=sgd", "lr=1"]) == 0
    assert main(["train", str(tmp_path / "run.json")]) == 0
    assert surface.Trainer.calls[0][1].keys() == surface.Trainer.calls[1][1].keys()
    for name in ("optimizer", "schedule", "mesh", "clip", "output"):
        assert surface.Trainer.calls[0][1][name] == surface.Trainer.calls[1][1][name]
    assert surface.Trainer.calls[0][1]["optimizer"] == mw.SGD(1.0, 0.0, 0.1)


def test_train_from_a_folder_takes_its_weights(surface, tmp_path, capsys):
    assert main(["train", f"model={tmp_path}", "data=d"]) == 0
    assert surface.Model.from_pretrained.calls == [((str(tmp_path),), {"dtype": "float32"})] and surface.Model.calls == []
    assert f"the weights in {tmp_path}" in capsys.readouterr().err
    assert main(["train", f"model={tmp_path}", "data=d", "model.num_layers=2"]) == 2
    assert "is a folder, whose configuration is fixed; found model.num_layers" in capsys.readouterr().err


def test_generate(surface, tmp_path, capsys):
    assert main(["generate", str(tmp_path), 'prompt=["Once", "def "]', "temperature=0.7", "top_k=5", "stop=\n\n"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "Once one\n" + "-" * 40 + "\ndef  two\n"
    assert "'def ' ends in a space" in shown.err and "'Once'" not in shown.err
    arguments, options = surface.Generator.answer.generate.calls[0]
    assert arguments == (["Once", "def "],)
    assert options == {"max_new_tokens": 64, "do_sample": True, "seed": 0, "temperature": 0.7, "top_k": 5, "stop_strings": ["\n\n"]}
    assert main(["generate", str(tmp_path), "prompt=Once", "samples=2"]) == 0
    assert surface.Generator.answer.generate.calls[1] == ((["Once", "Once"],), {"max_new_tokens": 64, "do_sample": False, "seed": 0})


def test_generate_streams_when_asked_and_to_a_terminal(surface, tmp_path, capsys, monkeypatch):
    streamed = []

    def generate(prompts, on_text=None, on_end=None, **options):
        streamed.append(on_text is not None)
        if on_text is None:
            return [" one", " two", " three"]
        for index, text in ((1, " t"), (0, " o"), (2, " thr")):
            on_text(index, text)
        assert capsys.readouterr().out == "a o"
        on_text(1, "wo"), on_end(1)
        assert capsys.readouterr().out == ""
        on_text(0, "ne"), on_end(0)
        assert capsys.readouterr().out == "ne\n" + "-" * 40 + "\nb two\n" + "-" * 40 + "\nc thr"
        on_text(2, "ee"), on_end(2)
        assert capsys.readouterr().out == "ee\n"
        return [" one", " two", " three"]

    surface.Generator.answer.generate = generate
    arguments = ["generate", str(tmp_path), 'prompt=["a", "b", "c"]']
    assert main([*arguments, "stream=true"]) == 0 and capsys.readouterr().out == ""
    whole = "a one\n" + "-" * 40 + "\nb two\n" + "-" * 40 + "\nc three\n"
    assert main(arguments) == 0 and capsys.readouterr().out == whole
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(arguments) == 0 and capsys.readouterr().out == ""
    assert main([*arguments, "stream=false"]) == 0 and capsys.readouterr().out == whole
    assert streamed == [True, False, True, False]


def test_generate_without_the_folder(surface, tmp_path, capsys):
    assert main(["generate", str(tmp_path / "none"), "prompt=x"]) == 2
    assert "expected a checkpoint folder, a run folder" in capsys.readouterr().err


def test_inspect_lists_real_tensors(tmp_path, capsys):
    from meshwright import _core

    path = tmp_path / "a.safetensors"
    _core.write_safetensors(str(path), [("w", "f32", [2, 3], bytes(24)), ("b", "bf16", [3], bytes(6))])
    assert main(["inspect", str(path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["shape"], row["bytes"]) for row in report["tensors"]] == [("b", [3], 6), ("w", [2, 3], 24)]
    assert report["total_bytes"] == 30 and report["checkpoint"] == str(path)
    assert main(["inspect", str(path)]) == 0
    assert "2 x 3" in (table := capsys.readouterr().out) and "2 tensors, 30 B, in" in table
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["inspect", str(path)]) == 2
    assert "a.safetensors" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "none")]) == 2
    assert "which does not exist" in capsys.readouterr().err


def test_evaluate(surface, tmp_path, capsys):
    assert main(["evaluate", str(tmp_path), "data=d", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["loss"] == 2.0 and answer["bits_per_token"] == pytest.approx(2 / math.log(2)) and answer["split"] == "validation"


def test_plan(surface, capsys):
    assert main(["plan", "llama3-8b", "mesh.fsdp=8", "remat=full"]) == 0
    assert capsys.readouterr().out == "a table\n"
    arguments, options = surface.plan.calls[0]
    assert arguments == ("llama3-8b",) and sizes_of(options["mesh"]) == {"fsdp": 8} and options["remat"] == "full"
    assert main(["plan", "llama3-8b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"fits": True}
    assert main(["plan", "llama3-8b", "explain=partition"]) == 0
    assert capsys.readouterr().out == "after partition\n"


def test_prepare_bench_doctor(surface, capsys):
    assert main(["prepare", "a.txt", "b", "output=d", "vocab=512"]) == 0
    arguments, options = surface.prepare.calls[0]
    assert (
        arguments == (["a.txt", "b"], "d") and options["vocab"] == 512 and options["validation"] == 0.05 and options["tokenizer"] == "train"
    )
    assert main(["bench", "dot", "m=64", "threads=2"]) == 0
    assert surface.bench.calls == [(("dot",), {"m": 64, "dtype": "float32", "threads": 2})]
    assert "dot_avx2" in capsys.readouterr().out
    assert main(["doctor"]) == 0
    assert "warning: huge pages are off" in capsys.readouterr().out


def test_quickstart_stores_the_steps_it_chose(surface, tmp_path, monkeypatch, capsys):
    import meshwright.quickstart as quickstart

    tokens, starts = np.arange(200) % 50, np.array([0, 100])
    data = surface.TokenDataset.answer
    data.documents = lambda: (tokens, starts)
    monkeypatch.setattr(quickstart, "_seconds_per_step", lambda folder, seed, dtype: 0.25)
    surface.Generator.answer.generate.answer = [" os", ":\n    pass", "):\n    self.x = 1"]

    def fit(data, steps):
        history = mw.run_log.History(tmp_path)
        for step in (1, 2):
            history.append("train", step, mw.Metrics(loss=3.0 / step, perplexity=1.0, tokens=step))
        history.close()

    surface.trainer.fit = fit
    assert main(["quickstart", f"output={tmp_path}", "minutes=5"]) == 0
    shown = capsys.readouterr().out
    assert "steps=1200 repeats this run" in shown and "class Base:\n    pass" in shown and "try next:\n  meshwright generate" in shown
    assert read_settings(tmp_path)["steps"] == 1200 and (tmp_path / "loss.png").exists()
    assert set(mw.run_log.read_history(tmp_path).baselines) == {"unigram", "bigram", "trigram"}
    (train, folder), options = surface.prepare.calls[0]
    assert len(train) > len(options["validation"]) > 0 and folder == tmp_path / "data" and options["vocab"] == 4096
    # Started again, it takes the stored number and times nothing.
    monkeypatch.setattr(quickstart, "_seconds_per_step", None)
    assert main(["quickstart", f"output={tmp_path}"]) == 0
    assert main(["quickstart", f"output={tmp_path}", "steps=300"]) == 2
    assert "steps: 1200 there, 300 here" in capsys.readouterr().err
