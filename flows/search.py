"""The search flow: choose the cut and the kind of head, within a budget of minutes and disk space."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from flows.embed import embed
from flows.orchestrator.flow import flow
from flows.orchestrator.run_log import forward_logs
from flows.progress import show_progress
from flows.reports.search_report import SearchReport, write_plot
from flows.settings import RunSettings
from flows.train import train
from storage.errors import BackboneError, SettingsError, TrainError
from storage.lake.attach import read_lake
from storage.tables.features import measure_pace
from storage.tables.missing import Counts, FeatureRequest, count_images
from storage.tables.trainings import head_path
from tasks.embed.find_recipe import find_recorded_recipe
from tasks.encoder.backbone.weights import find_weights
from tasks.train.search.budget import Budget
from tasks.train.search.curve import advise, extrapolate, measure_gain, round_labels
from tasks.train.search.halving import (
    Contender,
    ContenderResult,
    Trial,
    choose_cuts,
    choose_winner,
    list_shares,
    rank_cuts,
    rank_trials,
    run_rounds,
)
from tasks.train.search.trials import SearchData, select_kind
from tasks.train.step import estimate_tail, read_search_data, try_head, try_tail
from tasks.train.train import TrainingData

if TYPE_CHECKING:
    from tasks.encoder.backbone.cuts import Cut

WHOLE_NETWORK, CLASSIFIER = "input", "avgpool"
EMBEDDING_SHARE = 0.5
"""Embedding at one more cut may take half of the time that is left, so that the rest is for training."""


@flow("search {settings.source}")
def search(settings: RunSettings) -> SearchReport:
    """Try heads at several cuts by successive halving, then tails at the best cuts, and train the best.

    Raises:
        SettingsError: if the settings cannot be searched, or leave no time or space for any cut.
        TrainError: if the lake has no images of the source.
    """
    from tasks.encoder.backbone.cuts import list_cuts

    check_searchable(settings)
    began = time.monotonic()
    running = _Search(settings, {cut.name: cut for cut in list_cuts(*settings.embed.network)})
    results = running.try_heads()
    with forward_logs():
        results += running.try_tails([result.trial for result in results if result.trial])
    trials = rank_trials([result.trial for result in results if result.trial])
    winner = _make_settings(settings, choose_winner(trials).contender)
    trained = train(winner)
    plot = write_plot(results, head_path(settings.resolved_home, trained.training.training_id).parent)
    sizes = {result.contender: running.measure_size(result.contender) for result in results}
    advice, seconds = _advise(settings, trials), time.monotonic() - began
    return SearchReport(winner, tuple(results), sizes, advice, plot, trained, running.computed, seconds)


def check_searchable(settings: RunSettings, at: str | None = None) -> None:
    """Refuse settings that a search does not support.

    Raises:
        SettingsError: if there is one; names it.
    """
    unsupported = {
        f"at {at}": at is not None,
        "embed.views": settings.embed.views > 0,
        "train.multi_label": settings.train.multi_label,
        "train.false_accept": settings.train.false_accept is not None,
        "train.average_views": settings.train.average_views,
        "train.near_duplicates": settings.train.near_duplicates,  # would split each cut differently
    }
    for name in (name for name, present in unsupported.items() if present):
        raise SettingsError(
            name, "is not supported with --cut auto", "Search without it, copy the settings that win, then add it"
        )


def _make_settings(settings: RunSettings, contender: Contender) -> RunSettings:
    """Return the settings that embed and train a contender."""
    pooling = settings.embed.pooling if contender.cut == CLASSIFIER else "average"
    pooling = "flatten" if contender.kind == "tail" else pooling
    embed = settings.embed.model_copy(update={"cut": contender.cut, "pooling": pooling})
    return settings.model_copy(update={"embed": embed, "train": select_kind(settings.train, contender.kind)})


class _Search:
    """A running search: its budget, and what it has embedded and measured so far."""

    def __init__(self, settings: RunSettings, cuts: "Mapping[str, Cut]") -> None:
        self.settings, self.cuts, self.budget = settings, cuts, Budget(settings.search)
        self.computed, self.network_seconds = 0, 0.0
        counts = self._count("")
        self.images = counts.missing + counts.present
        if not self.images:
            raise TrainError(settings.source_name, "has no images in this lake", "Run `frostline run FOLDER` first")

    def try_heads(self) -> list[ContenderResult]:
        """Try each kind of head at each cut that fits into the budget, by successive halving."""
        kinds, refused = dict.fromkeys(self.settings.search.heads), list[ContenderResult]()
        data = dict[str, SearchData]()
        for cut in self._choose_cuts():
            contender = Contender(cut, next(iter(kinds)))
            reason = self._refuse(contender, share=EMBEDDING_SHARE)
            if reason:
                refused += [ContenderResult(Contender(cut, kind), 0.0, None, reason) for kind in kinds]
            else:
                data[cut] = self._embed(contender)
        contenders = [Contender(cut, kind) for cut in data for kind in kinds]
        if not contenders:
            raise self._explain(refused)
        shares = list_shares(len(contenders), next(iter(data.values())).count_classes())
        results = run_rounds(contenders, shares, lambda contender, share: self._try_head(data, contender, share))
        if not any(result.trial for result in results):
            raise self._explain(results)
        return refused + results

    def try_tails(self, heads: list[Trial]) -> list[ContenderResult]:
        """Train tails at the cuts with the best heads, then the whole network."""
        count = self.settings.search.tails
        if not count or CLASSIFIER not in self.cuts:
            return []
        best = [cut for cut in rank_cuts(heads) if cut != CLASSIFIER][:count]
        return [self._try_tail(cut) for cut in (*best, WHOLE_NETWORK)]

    def measure_size(self, contender: Contender) -> int:
        """Return the size of a contender's features in bytes, before compression."""
        cut = self.cuts[contender.cut]
        return self.images * (cut.bytes if contender.kind == "tail" else cut.pooled)

    def _choose_cuts(self) -> list[str]:
        chosen = choose_cuts({name: cut.flops_saved for name, cut in self.cuts.items()}, self.settings.search.cuts)
        own = self.settings.embed.cut
        return chosen if own in chosen or own not in self.cuts or own == WHOLE_NETWORK else [own, *chosen]

    def _try_head(self, data: Mapping[str, SearchData], contender: Contender, share: float) -> Trial | None:
        if self.budget.seconds_left <= 0:
            return None
        return try_head(data[contender.cut], contender, share, self.settings.train)

    def _try_tail(self, cut: str) -> ContenderResult:
        contender, trained_share = Contender(cut, "tail"), max(1 - self.cuts[cut].flops_saved, 1e-3)
        trial = self._refuse(contender, self.network_seconds * trained_share) or self._train(contender, trained_share)
        if isinstance(trial, str):
            return ContenderResult(contender, 1.0, None, trial)
        verdict = "has all labels" if trial.epoch else "has all labels, but no epoch beat freezing everything"
        return ContenderResult(contender, 1.0, trial, verdict)

    def _train(self, contender: Contender, trained_share: float) -> Trial | str:
        """Train a tail, which is this share of the network; return the reason if it cannot be trained in time."""
        home, settings, cut = self.settings.resolved_home, self.settings.train, contender.cut
        try:
            data = self._embed(contender)
            seconds = estimate_tail(home, data, cut, settings)
            self.network_seconds = seconds / trained_share
            reason = self.budget.explain_refusal(seconds, 0)
            return reason or try_tail(home, data, cut, settings, show_progress, self.budget.deadline)
        except BackboneError as error:
            return f"not tried: {error}"

    def _refuse(self, contender: Contender, training_seconds: float = 0.0, share: float = 1.0) -> str | None:
        """Return why a contender's features do not fit into the budget; charge their bytes if they do."""
        embedding = _make_settings(self.settings, contender).embed
        home = self.settings.resolved_home
        recipe = find_recorded_recipe(home, embedding, find_weights(home, embedding.backbone, embedding.weights))
        with read_lake(home) as lake:
            pace = measure_pace(lake, recipe.recipe_id if recipe else None)
        missing = self._count(recipe.recipe_id if recipe else "").missing
        size = 0 if embedding == self.settings.embed else self.measure_size(contender)
        seconds = training_seconds + (missing / pace.images_per_second if pace else 0.0)
        reason = self.budget.explain_refusal(seconds, size, share)
        if reason is None:
            self.budget.spend(size)
        return reason

    def _embed(self, contender: Contender) -> SearchData:
        """Embed what is missing at a contender's cut, and read its features."""
        settings = _make_settings(self.settings, contender)
        embedded = embed(settings)
        self.computed += embedded.computed
        data = TrainingData(settings.label_set, embedded.recipe_id)
        return read_search_data(settings.resolved_home, data, settings.train)

    def _count(self, recipe_id: str) -> Counts:
        with read_lake(self.settings.resolved_home) as lake:
            return count_images(lake, FeatureRequest(recipe_id, self.settings.source_name, self.settings.retry))

    def _explain(self, results: list[ContenderResult]) -> SettingsError:
        first = results[0]
        return SettingsError(
            f"search.minutes {self.settings.search.minutes} and search.bytes {self.settings.search.bytes}",
            f"leave no room for a head at {first.contender.cut} ({first.verdict})",
            "Raise --search.minutes or --search.bytes",
        )


def _advise(settings: RunSettings, trials: list[Trial]) -> str:
    """Compare adding labels with unfreezing more, starting from the best frozen head."""
    seed, train_share = settings.train.seed, 1 - settings.train.validation - settings.train.test
    frozen = next(trial for trial in trials if trial.contender.kind != "tail")
    tail = next((trial for trial in trials if trial.contender.kind == "tail"), None)
    labels = round_labels(round(frozen.images / frozen.share / train_share))
    curve = sorted((trial for trial in trials if trial.contender == frozen.contender), key=lambda trial: trial.images)
    more = extrapolate(curve, round(frozen.images + labels * train_share), seed) if frozen.share == 1 else None
    unfrozen = measure_gain(frozen, tail) if tail and frozen.share == 1 else None
    return advise(labels, more, tail.contender.cut if tail else None, unfrozen)
