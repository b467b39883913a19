"""The code that a registered model carries: the modules that serving imports, packed under a name of their own.

A program that loads a model may have a ``tasks.py`` of its own, and may load two versions of a model at once. So each
model's code is a package whose name contains a hash of it, and its imports name that package.
"""

import ast
import hashlib
import importlib
import importlib.metadata
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version as get_version
from pathlib import Path

ROOT = Path(__file__).parents[3]
ENTRY = "tasks.register.registry.served"
OWN = ("storage", "tasks")
OWN_IMPORT = re.compile(rf"^(\s*from )(?=(?:{'|'.join(OWN)})\.)", re.MULTILINE)


@dataclass(frozen=True)
class ServingCode:
    """The code of a served model.

    Attributes:
        package: The name of the package that holds it.
        modules: The text of each module, by its name in this project, with imports of the package.
        libraries: The libraries that the modules import, by the name that they are imported by.
    """

    package: str
    modules: dict[str, str]
    libraries: tuple[str, ...]

    def write(self, folder: Path) -> Path:
        """Write the package into a folder; return the path of its entry, outside the package."""
        for name, text in self.modules.items():
            path = folder / self.package / Path(*name.split(".")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        for room in [folder / self.package, *(folder / self.package).rglob("*/")]:
            (room / "__init__.py").touch()
        entry = folder / "served.py"
        entry.write_text(self.modules[ENTRY], encoding="utf-8")
        return entry

    def list_requirements(self) -> list[str]:
        """List the installed release of each library that the code imports, as pip requirements."""
        distributions = _find_distributions(self.libraries)
        names = {_choose(library, distributions.get(library, [library])) for library in self.libraries}
        return [f"{name}=={get_version(name)}" for name in sorted(names)]


def collect_code() -> ServingCode:
    """Collect the modules that serving imports, directly or not, and the libraries that these import."""
    texts, libraries, waiting = dict[str, str](), set[str](), [ENTRY]
    while waiting:
        name = waiting.pop()
        if name in texts:
            continue
        texts[name] = _find(name).read_text(encoding="utf-8")
        for imported in _list_imports(texts[name]):
            top = imported.partition(".")[0]
            if top in OWN:
                waiting.append(imported if _find(imported).is_file() else imported.rpartition(".")[0])
            elif top not in sys.stdlib_module_names:
                libraries.add(top)
    package = f"frostline_model_{_digest(texts)[:16]}"
    modules = {name: OWN_IMPORT.sub(rf"\g<1>{package}.", text) for name, text in sorted(texts.items())}
    return ServingCode(package, modules, tuple(sorted(libraries)))


def forget_package(package: str) -> None:
    """Let this process import a package anew, from wherever it is found next."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]
    importlib.invalidate_caches()


def _find(name: str) -> Path:
    return ROOT.joinpath(*name.split(".")).with_suffix(".py")


def _list_imports(text: str) -> Iterator[str]:
    """List what a module imports, wherever it does, except for type checkers only."""
    waiting: list[ast.AST] = [ast.parse(text)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        waiting.extend(ast.iter_child_nodes(node))


def _find_distributions(libraries: Sequence[str]) -> dict[str, list[str]]:
    """Find the installed distributions that hold each library: their RECORD lists its files.

    ``importlib.metadata.packages_distributions`` reads much more, and takes seconds.
    """
    found: dict[str, list[str]] = {}
    for distribution in importlib.metadata.distributions():
        record = f"\n{distribution.read_text('RECORD') or ''}"
        for library in libraries:
            if f"\n{library}/" in record or f"\n{library}.py," in record:
                found.setdefault(library, []).append(distribution.name)
    return found


def _digest(texts: dict[str, str]) -> str:
    return hashlib.sha256("\0".join(f"{name}\0{texts[name]}" for name in sorted(texts)).encode()).hexdigest()


def _choose(library: str, distributions: list[str]) -> str:
    """Choose the distribution that has the library's name, if several provide it."""
    return next((name for name in distributions if name.lower() == library.lower()), min(distributions))
