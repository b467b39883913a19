"""The search flow: how deep to freeze, within a budget of labels, disk and minutes."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from prefect import flow

from flows.embed import embed
from flows.orchestrator.run_log import forward_logs
from flows.progress import show_progress
from flows.reports.search_report import SearchReport, write_picture
from flows.settings import RunSettings
from flows.train import train
from storage.errors import BackboneError, SettingsError, TrainError
from storage.lake.attach import read_lake
from storage.tables.features import measure_pace
from storage.tables.missing import Counts, FeatureRequest, count_images
from storage.tables.trainings import head_path
from tasks.embed.find_recipe import find_known
from tasks.encoder.backbone.weights import find_weights
from tasks.train.search.budget import Budget
from tasks.train.search.curve import advise, extrapolate, measure_gain, round_labels
from tasks.train.search.halving import (
    Contender,
    ContenderResult,
    Trial,
    choose,
    choose_cuts,
    list_shares,
    rank,
    rank_cuts,
    run_rounds,
)
from tasks.train.search.trials import Rows, ask_for
from tasks.train.step import estimate_tail, read_rows, try_head, try_tail
from tasks.train.train import TrainingData

if TYPE_CHECKING:
    from tasks.encoder.backbone.cuts import Cut

WHOLE, CLASSIFIER = "input", "avgpool"
HALF = 0.5
"""Of the time that is left, embedding at one more cut may take half: the rest is for training."""


@flow(flow_run_name="search {settings.source}", persist_result=False)
def search(settings: RunSettings) -> SearchReport:
    """Try heads at several cuts on few labels, carry the better on, try tails last, and train the best.

    Raises:
        SettingsError: where the settings ask for what no search can compare, or leave room for no cut.
        TrainError: where the lake has no images of the source.
    """
    from tasks.encoder.backbone.cuts import list_cuts

    check_searchable(settings)
    began = time.monotonic()
    going = _Search(settings, {cut.name: cut for cut in list_cuts(*settings.embed.network)})
    outcomes = going.try_heads()
    with forward_logs():
        outcomes += going.try_tails([outcome.trial for outcome in outcomes if outcome.trial])
    trials = rank([outcome.trial for outcome in outcomes if outcome.trial])
    winner = _settle(settings, choose(trials).contender)
    trained = train(winner)
    plot = write_picture(outcomes, head_path(settings.resolved_home, trained.training.training_id).parent)
    sizes = {outcome.contender: going.measure_size(outcome.contender) for outcome in outcomes}
    advice = _advise(settings, trials)
    return SearchReport(winner, tuple(outcomes), sizes, advice, plot, trained, going.computed, time.monotonic() - began)


def check_searchable(settings: RunSettings, at: str | None = None) -> None:
    """Refuse settings whose heads no search compares.

    Raises:
        SettingsError: naming them.
    """
    refused = {
        f"at {at}": at is not None,
        "embed.views": settings.embed.views > 0,
        "train.multi_label": settings.train.multi_label,
        "train.false_accept": settings.train.false_accept is not None,
        "train.average_views": settings.train.average_views,
        "train.near_duplicates": settings.train.near_duplicates,  # each cut sees others, and would split otherwise
    }
    for name in (name for name, wrong in refused.items() if wrong):
        raise SettingsError(
            f"{name} with --cut auto",
            "is nothing that a search compares cuts by",
            "Search without it, write down the settings that win, then add it",
        )


def _settle(settings: RunSettings, contender: Contender) -> RunSettings:
    """Give the settings under which a contender is embedded and trained."""
    own = settings.embed.pooling if contender.cut == CLASSIFIER else "average"
    pooling = "flatten" if contender.kind == "tail" else own
    embed = settings.embed.model_copy(update={"cut": contender.cut, "pooling": pooling})
    return settings.model_copy(update={"embed": embed, "train": ask_for(settings.train, contender.kind)})


class _Search:
    """A search under way: the budget, and what was embedded and measured so far."""

    def __init__(self, settings: RunSettings, cuts: "Mapping[str, Cut]") -> None:
        self.settings, self.cuts, self.budget = settings, cuts, Budget(settings.search)
        self.computed, self.whole_seconds = 0, 0.0
        counts = self._count("")
        self.images = counts.missing + counts.present
        if not self.images:
            raise TrainError(settings.source_name, "has no images in this lake", "Run `frostline run FOLDER` first")

    def try_heads(self) -> list[ContenderResult]:
        """Try each kind of head at each cut that fits, by successive halving."""
        kinds, refused, rows = dict.fromkeys(self.settings.search.heads), list[ContenderResult](), dict[str, Rows]()
        for cut in self._choose_cuts():
            contender = Contender(cut, next(iter(kinds)))
            reason = self._refuse(contender, share=HALF)
            if reason:
                refused += [ContenderResult(Contender(cut, kind), 0.0, None, reason) for kind in kinds]
            else:
                rows[cut] = self._open(contender)
        contenders = [Contender(cut, kind) for cut in rows for kind in kinds]
        if not contenders:
            raise self._explain(refused)
        shares = list_shares(len(contenders), next(iter(rows.values())).count_classes())
        outcomes = run_rounds(contenders, shares, lambda contender, share: self._try(rows, contender, share))
        if not any(outcome.trial for outcome in outcomes):
            raise self._explain(outcomes)
        return refused + outcomes

    def try_tails(self, heads: list[Trial]) -> list[ContenderResult]:
        """Train tails at the cuts with the best heads, then from the pixels."""
        most = self.settings.search.tails
        if not most or CLASSIFIER not in self.cuts:
            return []
        best = [cut for cut in rank_cuts(heads) if cut != CLASSIFIER][:most]
        return [self._try_tail(cut) for cut in (*best, WHOLE)]

    def measure_size(self, contender: Contender) -> int:
        """Give the bytes of a contender's features, before compression."""
        cut = self.cuts[contender.cut]
        return self.images * (cut.bytes if contender.kind == "tail" else cut.pooled)

    def _choose_cuts(self) -> list[str]:
        chosen = choose_cuts({name: cut.flops_saved for name, cut in self.cuts.items()}, self.settings.search.cuts)
        own = self.settings.embed.cut
        return chosen if own in chosen or own not in self.cuts or own == WHOLE else [own, *chosen]

    def _try(self, rows: Mapping[str, Rows], contender: Contender, share: float) -> Trial | None:
        if self.budget.seconds_left <= 0:
            return None
        return try_head(rows[contender.cut], contender, share, self.settings.train)

    def _try_tail(self, cut: str) -> ContenderResult:
        contender, left = Contender(cut, "tail"), max(1 - self.cuts[cut].flops_saved, 1e-3)
        reason = self._refuse(contender, self.whole_seconds * left)
        if reason:
            return ContenderResult(contender, 1.0, None, reason)
        home, asked = self.settings.resolved_home, self.settings.train
        try:
            rows = self._open(contender)
            seconds = estimate_tail(home, rows, cut, asked)
            self.whole_seconds = seconds / left
            reason = self.budget.refuse(seconds, 0)
            if reason:
                return ContenderResult(contender, 1.0, None, reason)
            trial = try_tail(home, rows, cut, asked, show_progress, self.budget.deadline)
            if isinstance(trial, str):
                return ContenderResult(contender, 1.0, None, trial)
        except BackboneError as error:
            return ContenderResult(contender, 1.0, None, f"not tried: {error}")
        learned = "has all labels" if trial.epoch else "has all labels, but no epoch beat freezing everything"
        return ContenderResult(contender, 1.0, trial, learned)

    def _refuse(self, contender: Contender, training: float = 0.0, share: float = 1.0) -> str | None:
        """Say why features do not fit into the budget; take their bytes from it where they do."""
        settings = _settle(self.settings, contender)
        home, asked = settings.resolved_home, settings.embed
        recipe = find_known(home, asked, find_weights(home, asked.backbone, asked.weights))
        with read_lake(home) as lake:
            pace = measure_pace(lake, recipe.recipe_id if recipe else None)
        missing = self._count(recipe.recipe_id if recipe else "").missing
        size = 0 if asked == self.settings.embed else self.measure_size(contender)
        seconds = training + (missing / pace.images_per_second if pace else 0.0)
        reason = self.budget.refuse(seconds, size, share)
        if reason is None:
            self.budget.spend(size)
        return reason

    def _open(self, contender: Contender) -> Rows:
        """Embed what is missing at a contender's cut, and read it."""
        settings = _settle(self.settings, contender)
        embedded = embed(settings)
        self.computed += embedded.computed
        data = TrainingData(settings.label_set, embedded.recipe_id)
        return read_rows(settings.resolved_home, data, settings.train)

    def _count(self, recipe_id: str) -> Counts:
        with read_lake(self.settings.resolved_home) as lake:
            return count_images(lake, FeatureRequest(recipe_id, self.settings.source_name, self.settings.retry))

    def _explain(self, outcomes: list[ContenderResult]) -> SettingsError:
        first = outcomes[0]
        return SettingsError(
            f"search.minutes {self.settings.search.minutes} and search.bytes {self.settings.search.bytes}",
            f"leave no room for a head at {first.contender.cut} ({first.verdict})",
            "Raise --search.minutes or --search.bytes",
        )


def _advise(settings: RunSettings, trials: list[Trial]) -> str:
    """Weigh more labels against unfreezing more, from the best frozen head on."""
    seed, asked = settings.train.seed, settings.train
    frozen = next(trial for trial in trials if trial.contender.kind != "tail")
    deeper = next((trial for trial in trials if trial.contender.kind == "tail"), None)
    trained = 1 - asked.validation - asked.test
    labels = round_labels(round(frozen.images / frozen.share / trained))
    curve = sorted((each for each in trials if each.contender == frozen.contender), key=lambda trial: trial.images)
    more = extrapolate(curve, round(frozen.images + labels * trained), seed) if frozen.share == 1 else None
    unfrozen = measure_gain(frozen, deeper, seed) if deeper and frozen.share == 1 else None
    return advise(labels, more, deeper.contender.cut if deeper else None, unfrozen)
