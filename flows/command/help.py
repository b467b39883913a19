"""The help of a command: its own flags on one screen by ``--help``, and every setting by ``--help-all``."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cyclopts.help.formatters import DefaultFormatter

from flows.command.config import list_settings
from flows.settings import RunSettings
from storage.plural import pluralize

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

HELP, HELP_ALL = "--help", "--help-all"
HOME = ("home", "lake")
RUN = (*HOME, "name", "retry", "new_recipe", "ingest", "embed", "train", "registry")
SETTINGS = {
    "run": RUN,
    "plan": RUN,
    "train": (*HOME, "name", "embed", "train", "search"),
    "cuts": ("embed.weights", "embed.crop", "embed.stored"),
    "evaluate": (*HOME, "name"),
    "review": (*HOME, "name"),
}
"""The settings that a command uses, or groups of them; of commands that are not named here, all."""


class ShortHelp(DefaultFormatter):
    """Shows a command's own flags and the settings that it uses, each group of them as one line."""

    def __init__(self, command: str) -> None:
        super().__init__()
        self.command = command

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:
        """Render a panel."""
        if panel.format == "parameter":
            panel = panel.copy(entries=list(self._shorten(panel.entries)))
        super().__call__(console, options, panel)

    def _shorten(self, entries: "Sequence[HelpEntry]") -> "Iterator[HelpEntry]":
        settings = list(list_settings(RunSettings))
        groups: set[str] = set()
        for entry in entries:
            name = _name_setting(entry)
            group = name.partition(".")[0]
            if entry.positional_label or name not in settings or self._uses(name):
                yield entry.copy(env_var=None, negative_names=())
            elif "." in name and self._uses(group) and group not in groups:
                groups.add(group)
                yield _summarize(entry, group, sum(setting.startswith(f"{group}.") for setting in settings))

    def _uses(self, name: str) -> bool:
        used = SETTINGS.get(self.command, HOME)
        return name in used


def want_all(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """Return the arguments with ``--help-all`` replaced by ``--help``, and whether it was among them."""
    return [HELP if argument == HELP_ALL else argument for argument in arguments], HELP_ALL in arguments


def describe_rest(command: str) -> str:
    """Return the line below a command's short help."""
    return f"frostline {command} {HELP_ALL} lists every setting with its environment variable."


def _name_setting(entry: "HelpEntry") -> str:
    """Return the setting that a flag sets, by its dotted name."""
    flag = entry.positive_names[0] if entry.positive_names else ""
    return flag.removeprefix("--").replace("-", "_")


def _summarize(entry: "HelpEntry", group: str, count: int) -> "HelpEntry":
    from cyclopts.help import InlineText

    text = f"{RunSettings.model_fields[group].description} {pluralize(count, 'setting')}."
    return entry.copy(
        positive_names=(f"--{group}.*",),
        negative_names=(),
        metavar=None,
        description=InlineText.from_format(text, format="plaintext"),
        required=False,
        choices=None,
        env_var=None,
        default=None,
    )
