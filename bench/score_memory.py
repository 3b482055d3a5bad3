"""Peak memory of `distilora score` by number of rows: python bench/score_memory.py RUN [--rows 10000 1000000] [--format csv].

Every row is another short text. What is measured is RssAnon, the memory that a process has for itself, twenty times a
second; weights mapped from their file do not count. Linux only.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


def rows(count: int) -> Iterator[str]:
    for i in range(count):
        yield f"a {'superb' if i % 2 else 'dull'} film {i}"


def write(path: Path, count: int) -> None:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as parquet

        parquet.write_table(pa.table({"text": list(rows(count))}), path)
        return
    with open(path, "w", encoding="utf-8") as stream:
        if path.suffix == ".csv":
            stream.write("text\n")
        stream.writelines(
            (text if path.suffix == ".csv" else json.dumps({"text": text})) + "\n" for text in rows(count)
        )


def anonymous_mb(process: int) -> float:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("RssAnon")), 0.0)


def measure(run: str, kind: str, count: int, folder: Path) -> dict[str, object]:
    source = folder / f"{count}.{kind}"
    write(source, count)
    words = ["score", run, str(source), "--output", str(folder / f"scored-{count}"), "--device", "cpu"]
    begun, peak = time.monotonic(), 0.0
    child = subprocess.Popen([sys.executable, "-m", "distilora", *words], stdout=subprocess.DEVNULL)
    while child.poll() is None:
        peak = max(peak, anonymous_mb(child.pid))
        time.sleep(0.05)
    if child.returncode:
        sys.exit(f"score left with {child.returncode}")
    seconds = time.monotonic() - begun
    return {"rows": count, "format": kind, "peak_anonymous_mb": round(peak, 1), "seconds": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--format", choices=["csv", "jsonl", "parquet"], default="csv")
    args = parser.parse_args()
    for count in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(args.run, args.format, count, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
