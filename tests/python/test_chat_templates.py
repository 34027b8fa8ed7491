"""Chat templates: the same text as transformers, hostile ones bounded, chats through Generator and the command line."""

from __future__ import annotations

import json
import os
import threading
import time
from functools import partial

import meshwright as mw
import pytest
import transformers
from meshwright import UserError
from meshwright.cli.main import main
from meshwright.data import chat_template
from meshwright.data.chat_template import render
from meshwright.generator import _Follower
from tiny_models import make_model

SYSTEM = {"role": "system", "content": "Be brief.\n"}
USER, ANSWER = {"role": "user", "content": "  What is 2 + 2? <b>é</b> "}, {"role": "assistant", "content": "It is 4.\n"}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": [1.5, "é"], "c": None}}}],
}
TOOL = {
    "type": "function",
    "function": {"name": "add", "description": "Adds <numbers>", "parameters": {"type": "object", "properties": {}}},
}
CHATS = {
    "one": [USER],
    "system": [SYSTEM, USER],
    "turns": [USER, ANSWER, USER],
    "long": [SYSTEM, USER, ANSWER, {"role": "user", "content": "And 3 + 3?\n\nSay it."}, ANSWER],
    "calls": [USER, CALL, {"role": "tool", "name": "add", "content": '{"sum": 4}'}, ANSWER],
}

# Written in the manner of the families' own.
LLAMA3 = """{{- bos_token }}
{%- set day = day|default("26 Jul 2024") %}
{%- if messages[0]["role"] == "system" %}
    {%- set system = messages[0]["content"]|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
<|start_header_id|>system<|end_header_id|>

{% if tools is not none %}
Tools:
{% for tool in tools %}
{{ tool | tojson(indent=4) }}

{% endfor %}
{% endif %}
Today: {{ day }}

{{ system }}<|eot_id|>
{%- for message in messages %}
    {%- if "tool_calls" in message %}
        {%- for call in message.tool_calls %}
{{- "<|start_header_id|>assistant<|end_header_id|>\n\n" }}
{"name": "{{ call.function.name }}", "parameters": {{ call.function.arguments | tojson }}}<|eot_id|>
        {%- endfor %}
    {%- elif message.role in ("tool", "ipython") %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\n\n" + message.content + "<|eot_id|>" }}
    {%- else %}
        {{- "<|start_header_id|>" + message["role"] + "<|end_header_id|>\n\n" + message["content"] | trim + "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|start_header_id|>assistant<|end_header_id|>\n\n" }}
{%- endif %}
"""
MISTRAL = """{{ bos_token }}{% if messages[0].role == 'system' %}
{%- set first = messages[0].content + '\\n\\n' %}{% set loop_messages = messages[1:] %}
{%- else %}{% set first = '' %}{% set loop_messages = messages %}{% endif %}
{%- for message in loop_messages %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate user/assistant') }}{% endif %}
    {%- if message.role == 'user' %}{{ '[INST] ' + (first if loop.first else '') + message.content + ' [/INST]' }}
    {%- else %}{{ ' ' + message.content|trim + eos_token }}{% endif %}
{%- endfor %}"""
GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}
{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"""
CHATML = """{%- if tools %}
    {{- '<|im_start|>system\\n# Tools\\n<tools>' }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- '\\n</tools><|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last=-1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.last < 0 and message.role == "user" and message.content is string and not message.content.startswith('<tool_response>') %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if not message.content and not message.tool_calls %}{%- continue %}{%- endif %}
    {{- '<|im_start|>' ~ message.role ~ '\\n' ~ (message.content or '') }}
    {%- for call in message.tool_calls or [] %}
        {{- '\\n<tool_call>\\n{"name": "' ~ call.function.name ~ '", "arguments": ' }}
        {{- call.function.arguments | tojson }}
        {{- '}\\n</tool_call>' }}
    {%- endfor %}
    {{- ' (last)' if loop.index0 == ns.last }}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""
DEEPSEEK = """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}
{%- macro turn(name, text) %}{{ '<｜' + name + '｜>' + text }}{% endmacro %}
{%- set ns = namespace(system='', is_first=true) %}
{%- for message in messages if message['role'] == 'system' %}{% set ns.system = ns.system + message['content'] %}{% endfor %}
{{- bos_token }}{{ ns.system }}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}{% set ns.is_first = false %}{{ turn('User', message['content']) }}
    {%- elif message['role'] == 'assistant' and message['content'] is defined %}
        {%- generation %}{{ turn('Assistant', message['content'].split('</think>')[-1]) }}<｜end▁of▁sentence｜>{% endgeneration %}
    {%- elif message['role'] == 'tool' %}{{ turn('Tool', message['content']) }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt and not ns.is_first %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"""
TEMPLATES = {"llama3": LLAMA3, "mistral": MISTRAL, "gemma": GEMMA, "chatml": CHATML, "deepseek": DEEPSEEK}
WORDS = ["the quick brown fox jumps over the lazy dog\n", "naïve café, 2 + 2 = 4 <|im_start|>user [INST]\n"]


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    mw.Tokenizer.train(WORDS * 20, vocab=320).save(folder)
    return folder


def with_template(folder, target, **config):
    """A copy of the tokenizer with more in its configuration."""
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    path = target / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "bos_token": "the", **config}))
    return target


def outcome(call):
    """What a call gives, or that it fails."""
    try:
        return call()
    except Exception:
        return "fails"


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_texts_are_those_of_transformers(tokenizer_folder, tmp_path, name, chat):
    folder = with_template(tokenizer_folder, tmp_path / "t", chat_template=TEMPLATES[name])
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), mw.Tokenizer.from_path(folder)
    rendered = 0
    for options in ({}, {"add_generation_prompt": True}, {"tools": [TOOL]}, {"add_generation_prompt": True, "enable_thinking": False}):
        expected, text = (outcome(partial(t.apply_chat_template, CHATS[chat], tokenize=False, **options)) for t in (theirs, ours))
        assert text == expected
        if text != "fails":
            rendered += 1
            assert ours.apply_chat_template(CHATS[chat], **options) == ours.encode(text, add_special_tokens=False)
            assert theirs.apply_chat_template(CHATS[chat], return_dict=False, **options) == ours.apply_chat_template(CHATS[chat], **options)
    assert rendered or (name, chat) in (("gemma", "system"), ("gemma", "long"), ("mistral", "calls"), ("gemma", "calls"))


def test_where_templates_come_from(tokenizer_folder, tmp_path):
    named = [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}, {"name": "rag", "template": "R"}]
    folder = with_template(tokenizer_folder, tmp_path / "named", chat_template=named)

    def text(**options):
        return mw.Tokenizer.from_path(folder).apply_chat_template([USER], tokenize=False, **options)

    assert (text(), text(tools=[TOOL]), text(chat_template="rag"), text(chat_template="{{ 1 + 1 }}")) == ("D", "T", "R", "2")
    with pytest.raises(UserError, match="expected one of default, tool_use, rag, found 'raq' \\(did you mean 'rag'\\?\\)"):
        text(chat_template="raq")
    (folder / "chat_template.json").write_text('{"chat_template": "old"}')
    assert text() == "D"
    (folder / "chat_template.jinja").write_text("J é")
    (folder / "chat_templates").mkdir()
    (folder / "chat_templates" / "tool_use.jinja").write_text("JT")
    assert (text(), text(tools=[TOOL])) == ("J é", "JT")
    loaded = mw.Tokenizer.from_path(folder)
    loaded.save(tmp_path)
    assert mw.Tokenizer.from_path(tmp_path).chat_templates == loaded.chat_templates == {"default": "J é", "tool_use": "JT"}
    assert (tmp_path / "chat_templates" / "tool_use.jinja").read_text() == "JT"
    model = make_model(vocab_size=loaded.vocab_size)
    model.tokenizer = loaded
    model.save_pretrained(tmp_path / "model")
    assert mw.Model.from_pretrained(tmp_path / "model").tokenizer.files == loaded.files
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.apply_chat_template([USER], tokenize=False) == "J é"
    old = with_template(tokenizer_folder, tmp_path / "old")
    (old / "chat_template.json").write_text('{"chat_template": "old"}')
    assert mw.Tokenizer.from_path(old).apply_chat_template([USER], tokenize=False) == "old"


def test_no_template_and_damaged_ones(tokenizer_folder, tmp_path):
    with pytest.raises(UserError, match="expected a chat template .*found none: the model may not be made for chats"):
        mw.Tokenizer.from_path(tokenizer_folder).apply_chat_template([USER])
    for number, (wrong, part) in enumerate(((7, "found 7"), ([{"name": "x"}], "expected a text or a list"), (["x"], "found \\['x'\\]"))):
        folder = with_template(tokenizer_folder, tmp_path / str(number), chat_template=wrong)
        with pytest.raises(UserError, match=part):
            mw.Tokenizer.from_path(folder).apply_chat_template([USER])
    (folder / "chat_template.jinja").write_bytes(b"ab\xff")
    with pytest.raises(UserError, match="chat_template.jinja, byte 2: expected UTF-8 text, found the byte 0xff"):
        mw.Tokenizer.from_path(folder).apply_chat_template([USER])


@pytest.mark.parametrize(
    "messages, part",
    [
        ([], "messages: expected a list of at least one message, found list without items"),
        ("hello", "messages: expected a list of at least one message, found 'hello'"),
        (USER, "found dict"),
        (["hello"], r"messages\[0\]: expected a dict with 'role' and 'content', found 'hello'"),
        ([{"role": "user", "content": b"x"}], r"messages\[0\]\['content'\]: expected texts, numbers, lists and dicts, found bytes"),
        ([{"role": "user", 3: "x"}], r"messages\[0\]: expected texts as keys, found 3"),
        ([{"role": "user", "content": "\ud800"}], "half of a surrogate pair"),
    ],
)
def test_messages_that_are_none(messages, part):
    with pytest.raises(UserError, match=part):
        render(messages, "{{ messages[0].content }}")


def test_deep_and_large_messages():
    deep = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(UserError, match="at most 100 levels"):
        render([{"role": "user", "content": deep}], "x")
    with pytest.raises(UserError, match="expected at most 67108864 bytes"):
        render([{"role": "user", "content": "x" * (1 << 26)}], "x")
    assert len(render([{"role": "user", "content": "é" * (1 << 22)}], "{{ messages[0].content }}")) == 1 << 22


# ---- hostile templates ----


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ ().__class__.__base__ }}",
        "{{ messages.__class__.__init__.__globals__ }}",
        "{{ ''['__class__']['__mro__'] }}",
        "{{ (''|attr('__class__'))|attr('__mro__') }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__globals__['sys'] }}",
        "{{ tojson.__globals__ }}{{ self.__init__.__globals__ }}",
        "{{ '{0.__class__.__mro__}'.format(1) }}{{ ('%s'|format(1)).__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'x'}) }}",
        "{{ messages[0].clear() }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os }}",
        "{{ lipsum.__globals__ }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}{{ ns.__class__.__mro__ }}",
    ],
)
def test_templates_that_reach_out(template):
    text = outcome(lambda: render([USER], template))
    assert text == "fails" or "class" not in text and "root" not in text and "<" not in text, text
    with pytest.raises(UserError, match="the chat template failed: "):
        render([USER], template + "{{ raise_exception('still there') }}")


@pytest.mark.parametrize(
    "template, part",
    [
        ("{% for i in range(10**9) %}x{% endfor %}", "Range too big"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "takes longer than 2 seconds"),
        ("{{ (9**9)**(9**9) }}", "takes longer than 2 seconds|memory"),
        ("{{ 'a' * 10**10 }}", "more than 512 MiB"),
        ("{{ 'a'.ljust(10**9) }}", "more than 512 MiB"),
        ("{{ 'x'|center(10**9) }}", "more than 512 MiB"),
        ("{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}", "more than 512 MiB"),
        ("{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}", "more than 16777216 characters"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself too often"),
        ("{{" + "(" * 5000 + "1" + ")" * 5000 + "}}", "calls itself too often"),
        ("{% for m in messages %}", "line 1: Unexpected end of template"),
        ("{{ raise_exception('no system role') }}", "failed: no system role"),
        ("{{ nothing.at.all }}", "'nothing' is undefined"),
        ("{{ 1 / 0 }}", "division by zero"),
    ],
)
def test_templates_are_bounded(template, part, monkeypatch):
    monkeypatch.setattr(chat_template, "SECONDS", 2.0)
    start = time.monotonic()
    with pytest.raises(UserError, match=part):
        render([USER], template)
    assert time.monotonic() - start < 10
    assert render([USER], "{{ messages[0].role }}") == "user"  # the next one is served


def test_the_process_opens_no_files_and_comes_back():
    first = render([USER], "{{ 1 }}") and chat_template._RENDERER.process
    limits = dict(
        line[:26].strip() and (line[:26].strip(), line[26:].split()[0])
        for line in open(f"/proc/{first.pid}/limits").read().splitlines()[1:]
    )
    assert limits["Max open files"] == "3" and limits["Max file size"] == "0" and int(limits["Max address space"]) < 2 << 30
    first.kill()
    first.wait()
    assert render([USER], "{{ 2 }}") == "2" and chat_template._RENDERER.process is not first


def test_threads_and_forks_get_their_own_answers():
    answers = {}

    def ask(number):
        answers[number] = [render([USER], "{{ n }}", n=number * 1000 + i) for i in range(30)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: [str(number * 1000 + i) for i in range(30)] for number in range(8)}
    child = os.fork()
    if child == 0:
        os._exit(0 if render([USER], "{{ 'child' }}") == "child" and chat_template._RENDERER.stop() is None else 1)
    assert render([USER], "{{ 'parent' }}") == "parent" and os.waitpid(child, 0)[1] == 0


# ---- chats through the generator ----


@pytest.fixture(scope="module")
def chatting(tokenizer_folder, tmp_path_factory):
    """The folder of a model that answers chats."""
    folder = tmp_path_factory.mktemp("chatting")
    given = with_template(tokenizer_folder, folder / "t", chat_template=CHATML)
    tokenizer = mw.Tokenizer.from_path(given)
    model = make_model(seed=4, vocab_size=tokenizer.vocab_size, max_position_embeddings=512)
    model._session.write_tensor("lm_head.weight", model.state_dict()["lm_head.weight"].gather() * 20)
    model.tokenizer = tokenizer
    model.save_pretrained(folder / "model")
    return folder / "model"


def test_chat(chatting):
    model = mw.Model.from_pretrained(chatting)
    generator = mw.Generator(model)
    ids = model.tokenizer.apply_chat_template([SYSTEM, USER], add_generation_prompt=True)
    (expected,) = generator.generate([ids], max_new_tokens=12, return_details=True)
    assert generator.chat([SYSTEM, USER], max_new_tokens=12) == expected.text
    assert generator.chat([SYSTEM, USER], max_new_tokens=12, return_details=True) == expected
    assert generator.generate([[SYSTEM, USER], [USER]], max_new_tokens=12)[0] == expected.text
    pieces = []
    assert generator.chat([SYSTEM, USER], max_new_tokens=12, on_text=pieces.append) == "".join(pieces)
    quiet = model.tokenizer.apply_chat_template([USER], add_generation_prompt=True, enable_thinking=False)
    (other,) = generator.generate([quiet], max_new_tokens=12, return_details=True)
    assert generator.chat([USER], template_variables={"enable_thinking": False}, max_new_tokens=12) == other.text
    with pytest.raises(UserError, match="found one list of messages; write \\[messages\\], or use chat\\(messages\\)"):
        generator.generate([USER, ANSWER])
    with pytest.raises(UserError, match="expected whole numbers as token ids, found {'role'"):
        generator.generate([[USER], "text"])
    model.tokenizer = None
    with pytest.raises(UserError, match="the model has no tokenizer for messages"):
        generator.chat([USER])


def test_chat_on_the_command_line(chatting, tokenizer_folder, tmp_path, capsys):
    expected = mw.Generator(mw.Model.from_pretrained(chatting)).chat([{"role": "user", "content": "hello "}], max_new_tokens=8)
    assert main(["generate", str(chatting), "prompt=hello ", "chat=true", "max_new_tokens=8"]) == 0
    shown = capsys.readouterr()
    assert shown.out == expected + "\n" and "ends in a space" not in shown.err
    model = mw.Model.from_pretrained(chatting)
    model.tokenizer = mw.Tokenizer.from_path(tokenizer_folder)
    model.save_pretrained(tmp_path / "plain")
    assert main(["generate", str(tmp_path / "plain"), "prompt=hello", "chat=true"]) != 0
    assert "expected a chat template" in capsys.readouterr().err


def test_a_model_ends_where_its_generation_config_says(chatting, tmp_path):
    for file in chatting.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    (tmp_path / "manifest.json").unlink(missing_ok=True)
    model = mw.Model.from_pretrained(tmp_path)
    assert model.eos_token_ids == [7, 9] and model.tokenizer.eos_token_ids == [7, 9]
    model.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "generation_config.json").read_text())["eos_token_id"] == [7, 9]


def test_continuations_keep_their_space(tmp_path):
    """A SentencePiece text drops the space it begins with; what goes on from a prompt must not."""
    from tokenizer_samples import sentencepiece_file

    (tmp_path / "tokenizer.model").write_bytes(
        sentencepiece_file("bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False)
    )
    tokenizer = mw.Tokenizer.from_path(tmp_path)
    whole, head = tokenizer.encode("the model reads a file 🙂 well"), tokenizer.encode("the model")
    assert whole[: len(head)] == head
    assert tokenizer.decode(whole[len(head) :]) == "reads a file 🙂 well"
    assert tokenizer.decode_after(head, whole[len(head) :]) == " reads a file 🙂 well"
    assert tokenizer.decode_after([1], whole[1:]) == "the model reads a file 🙂 well"
    model = make_model(seed=4, vocab_size=tokenizer.vocab_size)
    model.tokenizer = tokenizer
    pieces = []
    (answer,) = mw.Generator(model).generate(
        ["the model"], max_new_tokens=20, do_sample=True, on_text=lambda i, text: pieces.append(text), return_details=True
    )
    assert answer.text == "".join(pieces) == tokenizer.decode_after(head, answer.token_ids)
    # One wrong byte in a run of bytes changes how those before it are decoded: none of the run is handed out before its end.
    run = [tokenizer.backend.token_to_id(piece) for piece in ("<0x43>", "<0x9F>", "<0x41>")] + tokenizer.encode("the model reads")
    pieces.clear()
    follower = _Follower(tokenizer, [head], [], [], len(run), lambda i, text: pieces.append(text), None)
    for token in run:
        follower(0, token)
    assert len(pieces) > 1 and "".join(pieces) == tokenizer.decode_after(head, run)
