"""Successive halving: contenders, subsets of the labels, promotion, and the budget."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tasks.train.search.budget import Budget
from tasks.train.search.halving import (
    Contender,
    Trial,
    choose_cuts,
    choose_winner,
    list_shares,
    rank_cuts,
    rank_trials,
    run_rounds,
    take_subset,
)
from tasks.train.settings import SearchSettings

CUTS = [f"cut {number}" for number in range(8)]
CONTENDERS = [Contender(cut, "softmax") for cut in CUTS]
ROWS = [(f"image {number}", "rare" if number % 50 == 0 else f"class {number % 3}") for number in range(600)]


def make_trial(contender: Contender, share: float, loss: float) -> Trial:
    return Trial(contender, round(600 * share), share, {"a": True, "b": False}, loss, 0.0)


def fall(contender: Contender, share: float) -> Trial:
    """Make losses that fall with more labels and with the distance from cut 5."""
    worse = abs(CUTS.index(contender.cut) - 5)
    return make_trial(contender, share, 0.1 * worse + 0.1 / share)


def test_each_round_promotes_the_better_half_and_drops_the_rest() -> None:
    outcomes = run_rounds(CONTENDERS, [0.25, 0.5, 1.0], fall)
    tried = {share: [o.contender.cut for o in outcomes if o.share == share] for share in (0.25, 0.5, 1.0)}
    assert [len(cuts) for cuts in tried.values()] == [8, 4, 2]
    assert tried[0.5] == ["cut 5", "cut 4", "cut 6", "cut 3"]
    best = rank_trials([outcome.trial for outcome in outcomes if outcome.trial])[0]
    assert (best.contender.cut, best.share) == ("cut 5", 1.0)
    dropped = {o.contender.cut for o in outcomes if o.verdict.startswith("dropped: log loss over")}
    assert dropped == set(CUTS) - {"cut 5", "cut 4"}
    assert [outcome.verdict for outcome in outcomes if outcome.share == 1] == ["has all labels"] * 2


def test_a_search_that_runs_out_of_time_keeps_its_results() -> None:
    left = iter(range(10))
    outcomes = run_rounds(CONTENDERS, [0.25, 0.5, 1.0], lambda c, share: fall(c, share) if next(left, None) else None)
    assert {outcome.share for outcome in outcomes} == {0.25}
    assert outcomes[0].verdict == "not tried: no minutes left"
    assert {outcome.verdict for outcome in outcomes[1:]} == {"stopped: no minutes left"}
    assert rank_trials([outcome.trial for outcome in outcomes if outcome.trial])[0].contender.cut == "cut 5"


def test_trials_on_all_labels_rank_first() -> None:
    few, all_labels = make_trial(CONTENDERS[0], 0.5, 0.1), make_trial(CONTENDERS[1], 1.0, 0.9)
    assert rank_trials([few, all_labels]) == [all_labels, few]
    assert rank_cuts([few, all_labels, few]) == ["cut 1", "cut 0"]


def test_subsets_are_nested_and_contain_each_class() -> None:
    before: set[int] = set()
    for share in (1 / 8, 1 / 4, 1 / 2, 1.0):
        places = take_subset(ROWS, share, seed=0)
        assert before < set(places)
        assert len(places) == pytest.approx(600 * share, abs=4)
        assert {ROWS[place][1] for place in places} == {"rare", "class 0", "class 1", "class 2"}
        before = set(places)
    assert before == set(range(600))


def test_subsets_depend_on_image_ids_and_the_seed_but_not_on_the_order() -> None:
    chosen = {ROWS[place] for place in take_subset(ROWS, 0.25, seed=0)}
    shuffled = [ROWS[place] for place in np.random.default_rng(0).permutation(len(ROWS))]
    assert {shuffled[place] for place in take_subset(shuffled, 0.25, seed=0)} == chosen
    assert {ROWS[place] for place in take_subset(ROWS, 0.25, seed=1)} != chosen


@pytest.mark.parametrize(
    ("contenders", "images", "shares"),
    [(15, 1000, [1 / 8, 1 / 4, 1 / 2, 1]), (2, 1000, [1 / 4, 1 / 2, 1]), (15, 10, [1 / 2, 1]), (1, 2, [1])],
)
def test_shares_double_up_to_all_labels(contenders: int, images: int, shares: list[float]) -> None:
    assert list_shares(contenders, {"a": images // 2, "b": images // 2}) == shares


def test_cuts_spread_over_what_freezing_saves_and_include_the_last() -> None:
    saved = {"input": 0.0, **{f"layer {tenth}": tenth / 10 for tenth in range(1, 10)}, "avgpool": 0.99}
    assert choose_cuts(saved, 5) == ["avgpool", "layer 8", "layer 6", "layer 4", "layer 2"]
    assert choose_cuts(saved, 1) == ["avgpool"]
    assert choose_cuts({"input": 0.0, "avgpool": 0.9}, 5) == ["avgpool"]


def test_a_budget_explains_what_does_not_fit() -> None:
    now = 100.0
    budget = Budget(SearchSettings(minutes=1, bytes=1000), lambda: now)
    assert budget.explain_refusal(59, 1000) is None
    budget.spend(400)
    assert budget.explain_refusal(1, 601) == "not tried: its features take 601 bytes, and search.bytes leaves 600"
    now += 50
    assert budget.explain_refusal(11, 0) == "not tried: would take about 11 s, and search.minutes leaves 10 s"
    assert budget.explain_refusal(9, 0, share=0.5) is not None
    now += 20
    assert budget.explain_refusal(0, 0) is not None
    assert math.isclose(budget.seconds_left, -10)


def test_a_tail_that_learned_nothing_loses_to_the_best_head() -> None:
    head, tail = (
        make_trial(Contender("avgpool", "softmax"), 1.0, 0.5),
        make_trial(Contender("layer3", "tail"), 1.0, 0.4),
    )
    assert choose_winner([head, replace(tail, epoch=0)]) == head
    assert choose_winner([head, replace(tail, epoch=3)]).contender.kind == "tail"
