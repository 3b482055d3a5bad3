"""Models that come with distilora: a name such as `imdb` stands for the folder of one, in every command that takes a RUN.

A folder of that name where the command is started goes first. Adapters alone are shipped; their encoder is in the package that the
extra `embedded` installs. How each was trained and measured says its README.md.
"""

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "shipped"


def shipped_names() -> list[str]:
    """List the names of the models that come with distilora."""
    return sorted(path.parent.name for path in FOLDER.glob("*/artifact.json"))


def shipped_folder(name: str | Path) -> Path | None:
    """Return the folder of a model that comes with distilora; None if there is no such model, or `name` exists here."""
    text = str(name)
    return FOLDER / text if text in shipped_names() and not Path(text).exists() else None


def is_shipped(folder: Path) -> bool:
    """Tell whether a model's folder is one of those that come with distilora, where nothing may be written."""
    return folder.resolve().parent == FOLDER.resolve()
