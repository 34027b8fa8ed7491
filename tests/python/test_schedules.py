import json
import math

import pytest
from meshwright import UserError
from meshwright.optimizers import SGD, AdamW, optimizer_from_dict
from meshwright.schedules import Constant, Linear, WarmupCosine, WarmupStableDecay, schedule_from_dict

# (schedule, total steps, {step: multiplier}) worked out by hand from the formulas in schedules.py.
HAND = [
    (Constant(), 10, {0: 1.0, 9: 1.0, 100: 1.0}),
    # 4 steps of warm-up, then 7 of cosine: x = (step-4)/6
    (
        WarmupCosine(warmup=4, final=0.1),
        11,
        {0: 0.0, 1: 0.25, 3: 0.75, 4: 1.0, 6: 0.75 + 0.025, 7: 0.55, 8: 0.25 + 0.075, 10: 0.1, 11: 0.0},
    ),
    (WarmupCosine(warmup=0.5, final=0.0), 4, {0: 0.0, 1: 0.5, 2: 1.0, 3: 0.0}),
    (WarmupCosine(warmup=0, final=0.3), 1, {0: 1.0, 1: 0.0}),
    # 2 of warm-up, 4 at the top, 4 of decay: 1, 2/3, 1/3, 0 of the way from 1 to 0.4
    (WarmupStableDecay(warmup=2, decay=4, final=0.4), 10, {0: 0.0, 1: 0.5, 2: 1.0, 5: 1.0, 6: 1.0, 7: 0.8, 8: 0.6, 9: 0.4, 10: 0.0}),
    (WarmupStableDecay(warmup=0.0, decay=0.3, final=0.0, style="cosine"), 10, {0: 1.0, 7: 1.0, 8: 0.5, 9: 0.0}),
    (Linear(warmup=2, final=0.2), 7, {0: 0.0, 1: 0.5, 2: 1.0, 3: 0.8, 4: 0.6, 6: 0.2, 7: 0.0}),
]


@pytest.mark.parametrize("schedule, total, figures", HAND, ids=lambda x: type(x).__name__)
def test_multipliers_match_hand_figures(schedule, total, figures):
    for step, expected in figures.items():
        assert math.isclose(schedule.lr_at(step, total), expected, abs_tol=1e-12), (step, schedule.lr_at(step, total))


@pytest.mark.parametrize("schedule", [row[0] for row in HAND], ids=lambda x: type(x).__name__)
def test_schedule_survives_json(schedule):
    assert schedule_from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule


@pytest.mark.parametrize("optimizer", [AdamW(lr=1e-3, betas=(0.8, 0.99)), SGD(lr=0.1, momentum=0.9)], ids=["adamw", "sgd"])
def test_optimizer_survives_json(optimizer):
    assert optimizer_from_dict(json.loads(json.dumps(optimizer.to_dict()))) == optimizer


@pytest.mark.parametrize(
    "make, parts",
    [
        (lambda: WarmupCosine(warmup=-1), ["WarmupCosine", "warmup", "-1"]),
        (lambda: WarmupCosine(warmup=1.5), ["share of the run", "1.5"]),
        (lambda: Linear(final=2), ["final", "from 0 to 1", "2"]),
        (lambda: WarmupStableDecay(style="exp"), ["'linear' or 'cosine'", "'exp'"]),
        (lambda: WarmupStableDecay(warmup=0.6, decay=0.6), ["1.2", "more than all"]),
        (lambda: AdamW(lr=-1.0), ["AdamW", "lr", "-1.0"]),
        (lambda: AdamW(lr=math.nan), ["lr", "nan"]),
        (lambda: AdamW(betas=(0.9, 1.0)), ["betas", "below 1"]),
        (lambda: AdamW(betas=0.9), ["two numbers"]),
        (lambda: SGD(lr=0.1, momentum=1), ["momentum", "below 1"]),
        (lambda: schedule_from_dict({"kind": "step"}), ["constant", "'step'"]),
        (lambda: schedule_from_dict({"kind": "linear", "decay": 3}), ["linear", "decay"]),
        (lambda: optimizer_from_dict({"kind": "lion"}), ["adamw", "'lion'"]),
    ],
)
def test_bad_settings_say_what_was_expected(make, parts):
    with pytest.raises(UserError) as error:
        make()
    for part in parts:
        assert part in str(error.value)
