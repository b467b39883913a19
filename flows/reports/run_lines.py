"""The lines of text that describe a run, made from the JSON objects of its report, without Prefect."""

from collections.abc import Mapping, Sequence
from typing import Any

from flows.reports.escape import escape_markdown
from flows.reports.throughput import describe_pace
from storage.plural import pluralize

Json = Mapping[str, Any]
COUNTED = ("seen", "new", "unchanged", "gone")


def describe_run(report: Json) -> list[str]:
    """Describe what ``frostline run --json`` prints in a few lines."""
    features, model, champion = report["features"], report["model"], report["champion"]
    counts = f"embedded {features['computed']} · reused {features['reused']} · failed {features['failed']}"
    lines = [describe_seen(report), f"features  {counts}"]
    if report["pace"]["images_per_second"]:
        lines.append(f"pace      {describe_pace(report['pace'])}")
    alias = f" · {model['alias']}" if model["alias"] else ""
    lines += [
        describe_head(report),
        describe_chosen(report),
        f"model     {model['name']} version {model['version']}{alias} · {model['gate']}",
        f"{_describe_lake(report)} · {report['seconds']['total']:.1f} s",
    ]
    if champion and (champion["computed"] or champion["failed"]):
        lines.append(f"champion  {_describe_champion(champion)}")
    if report["conflicts"]:
        images = pluralize(report["conflicts"], "image")
        lines.append(f"conflicts {images} in several classes, left out: see frostline sql 'from conflicts'")
    if features["failed"]:
        lines.append(f"failures  {features['failed']}: see frostline sql 'from failures'")
    return lines + [f"warning   {warning}" for warning in report["warnings"]]


def describe_seen(report: Json) -> str:
    """Describe in one line which images a run saw."""
    counts = [f"{report['images'][name]} {name}" for name in COUNTED]
    return f"images    {' · '.join(counts)}"


def describe_trained(trained: Json) -> list[str]:
    """Describe what ``frostline train --json`` prints in a few lines."""
    return [
        describe_head(trained),
        describe_chosen(trained),
        _describe_lake(trained),
        *(f"warning   {warning}" for warning in trained["warnings"]),
    ]


def describe_chosen(trained: Json) -> str:
    """Describe in one line what was chosen on validation: the kind of head, and its hyperparameters."""
    return f"chosen    {' · '.join(f'{name} {value}' for name, value in trained['chosen'].items())}"


def describe_head(trained: Json) -> str:
    """Describe how good a head is in one line."""
    metrics = trained["metrics"]
    action = "trained" if trained["trained"] else "nothing changed, nothing trained"
    if "mean_average_precision" in metrics:
        others = f"micro F1 {metrics['micro_f1']:.4f} · all labels right {metrics['accuracy']:.4f}"
        return f"head      {action} · test {_describe_metric(metrics, 'mean_average_precision', 'mAP')} · {others}"
    others = f"balanced {metrics['balanced_accuracy']:.4f} · log loss {metrics['log_loss']:.4f}"
    refused = f" · neither {metrics['refused']:.4f}" if "refused" in metrics else ""
    return f"head      {action} · test {describe_accuracy(metrics)} · {others}{refused}"


def describe_accuracy(metrics: Mapping[str, float]) -> str:
    """Describe the accuracy with its 95 % interval, which heads of earlier releases lack."""
    return _describe_metric(metrics, "accuracy", "accuracy")


def describe_seconds(seconds: Mapping[str, float]) -> str:
    """Describe in one line how long each step took."""
    return f"seconds   {' · '.join(f'{step} {taken:.1f} s' for step, taken in seconds.items())}"


def lines_to_markdown(title: str, lines: Sequence[str]) -> str:
    """Write lines, each with a word of up to nine letters before it, as a table under a title."""
    cells = [(line[:9].strip(), line[10:]) for line in lines]
    rows = "".join(f"| {escape_markdown(word)} | {escape_markdown(text)} |\n" for word, text in cells)
    return f"# {escape_markdown(title)}\n\n| | |\n|---|---|\n{rows}"


def _describe_lake(report: Json) -> str:
    return f"lake      snapshot {report['snapshot']} · recipe {report['recipe'][:12]}"


def _describe_metric(metrics: Mapping[str, float], name: str, title: str) -> str:
    text = f"{title} {metrics[name]:.4f}"
    if f"{name}_low" not in metrics:
        return text
    return f"{text} ({metrics[f'{name}_low']:.4f} to {metrics[f'{name}_high']:.4f})"


def _describe_champion(champion: Json) -> str:
    own = f"version {champion['version']}, recipe {champion['recipe'][:12]}"
    counts = (champion["computed"], champion["failed"], champion["predicted"])
    return "embedded {} · failed {} · predicted {} ({})".format(*counts, own)
