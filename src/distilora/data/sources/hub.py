"""Reads a dataset of the Hugging Face Hub, downloaded once, or from the local cache when there is no network.

The snapshot is read by `datasets` in streaming mode, so that only the requested split is read. Dataset scripts are
never run.
"""

from collections.abc import Iterator
from typing import Any

from distilora.data.sources import Source
from distilora.errors import DataError, MissingExtra
from distilora.files.tables import Record

_PATTERNS = ["README.md", "*.parquet", "*.csv", "*.tsv", "*.jsonl", "*.json", "*.json.gz", "*.csv.gz"]


def hub_source(dataset: str, name: str | None, revision: str | None, setting: str = "data.path") -> Source:
    """Open the dataset `owner/dataset` in configuration `name`.

    Raises DataError if it is neither reachable nor cached, or has no such configuration.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtra("datasets", "train") from None
    import huggingface_hub

    datasets.disable_progress_bars()
    try:
        folder = huggingface_hub.snapshot_download(
            dataset, repo_type="dataset", revision=revision, allow_patterns=_PATTERNS
        )
    except (huggingface_hub.errors.RepositoryNotFoundError, huggingface_hub.errors.RevisionNotFoundError) as error:
        raise DataError(
            f"{setting}: the Hub has no dataset {dataset} that you may read ({type(error).__name__}); check the name and your login"
        ) from None
    except Exception as error:  # a missing network raises errors of several HTTP libraries, none of them public here
        raise DataError(
            f"{setting}: there is no folder {dataset}, it is not in the Hub's local cache, and the Hub cannot be reached "
            f"({type(error).__name__}); without a network use recipes/imdb-embedded.yaml or --data.path embedded"
        ) from None
    try:
        builder = datasets.load_dataset_builder(folder, name)
        streams: dict[str, Any] = builder.as_streaming_dataset()
    except ValueError as error:
        raise DataError(f"data.name: {dataset}: {' '.join(str(error).split())}") from None
    except (OSError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{setting}: {dataset}: {' '.join(str(error).split())}; give another dataset") from None

    features = next(iter(streams.values())).features or {}
    names = {column: tuple(f.names) for column, f in features.items() if isinstance(f, datasets.ClassLabel)}

    def read(split: str) -> Iterator[Record]:
        number = 0
        try:
            for number, values in enumerate(streams[split], 1):
                yield Record(f"{dataset} {split}: row {number}", values)
        except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
            raise DataError(
                f"{dataset} {split}: row {number + 1}: cannot be read ({' '.join(str(error).split())}); download it again"
            ) from None

    return Source(dataset, tuple(streams), read, names)
