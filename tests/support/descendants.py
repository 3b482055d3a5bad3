"""The processes that a process started, on Linux."""

from pathlib import Path


def descendants(process: int) -> dict[int, str]:
    """Command lines of the processes that a process started, and those that they started."""
    parents, lines = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            lines[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    family, last = {process}, 0
    while len(family) != last:
        last = len(family)
        family |= {child for child, parent in parents.items() if parent in family}
    return {child: lines[child] for child in family - {process}}
