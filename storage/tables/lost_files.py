"""Feature files that are in the catalog, but not in the data folder."""

from storage.lake.checksums import name_data_file
from storage.lake.ducklake_files import DataFile, list_live, list_ranges
from storage.lake.lake import Lake
from storage.locations.parquet_files import list_folder
from storage.tables.missing import LostFile


def find_lost(lake: Lake, recipe_id: str) -> list[DataFile]:
    """Find the feature files of a recipe that are missing or have another size. Lists one folder, opens no file."""
    folder = f"main/features/recipe_id={recipe_id}"
    live = [file for file in list_live(lake) if file.path.startswith(f"{folder}/")]
    if not live:
        return []
    sizes = {info.base_name: info.size for info in list_folder(lake.home, folder)}
    return [file for file in live if sizes.get(file.name) != file.bytes]


def locate_lost(lake: Lake, recipe_id: str) -> tuple[LostFile, ...]:
    """Find the lost files of a recipe, with the ranges of their image ids, which are in the catalog."""
    lost = {file.name: name_data_file(lake, file.path) for file in find_lost(lake, recipe_id)}
    if not lost:
        return ()
    return tuple(LostFile(lost[name], *ends) for name, ends in list_ranges(lake).items() if name in lost)
