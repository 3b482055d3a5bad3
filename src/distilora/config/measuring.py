"""The settings of what looks at finished runs and data: an evaluation, behaviour checks, an audit (see schema.py)."""

from dataclasses import dataclass, field

from distilora.config.limits import SEEDS, require, require_two_columns
from distilora.config.schema import Base, DataConfig, EvaluationConfig, LexiconUse
from distilora.errors import ConfigError
from distilora.hardware import Device, InferencePrecision


@dataclass(frozen=True)
class SourceConfig:
    """The labelled examples that `distilora evaluate` measures a model on."""

    path: str = ""
    """As in training: a Hub dataset, 'embedded', a folder, a .tar.gz or a file."""
    split: str = "test"
    """Split to evaluate; a single file is taken whole, whatever its name."""
    name: str | None = None
    """Configuration of the Hub dataset, where it has several."""
    revision: str | None = None
    """Branch, tag or commit of the Hub dataset."""
    text_column: str | None = None
    """Column of the text; null: the one named in training, else found by name."""
    label_column: str | None = None
    """Column of the label; null: the one named in training, or the one whose label names the source declares."""
    separator: str | None = None
    """Separator of the cells of csv and tsv files, such as ';' or tab; null: detected (comma, semicolon, tab, bar)."""
    strict: bool = False
    """A blank text is an error; otherwise it is skipped and counted."""

    def __post_init__(self) -> None:
        """Raise ConfigError if one column is given for two."""
        require_two_columns(self.text_column, self.label_column)


@dataclass(frozen=True)
class ChecksConfig:
    """Checks of a model's behaviour on small texts made for the purpose; `--checks [FILE]` is short for the suite."""

    suite: str | None = None
    """Suite to run: sentiment, which comes with distilora, or a YAML file of your own; null: none."""
    negative: tuple[str | int, ...] | None = None
    """Labels of the model that the suite should take for negative; null: known by their usual names."""
    positive: tuple[str | int, ...] | None = None
    """Labels of the model that the suite should take for positive; null: known by their usual names."""
    seed: int = 0
    """Seed that chooses the texts; the same seed makes the same texts for every model."""
    examples: int = 5
    """Failing cases of each check shown with text and answers; cases.jsonl has them all."""

    def __post_init__(self) -> None:
        """Raise ConfigError if a field is out of range, or names labels without a suite."""
        require(0 <= self.seed < SEEDS, "checks.seed", self.seed, "a whole number from 0 to 2**63 - 1")
        require(self.examples >= 0, "checks.examples", self.examples, "0 or more")
        for name in ("negative", "positive"):
            if getattr(self, name) and self.suite is None:
                raise ConfigError(f"checks.{name}: given without checks; add --checks, or drop it")


@dataclass(frozen=True)
class MeasureConfig:
    """An evaluation of a finished run on other data."""

    output: str | None = None
    """Folder for metrics.json, predictions.parquet and report.html; null: in the run's folder,
    evaluations/DATA-SPLIT-PRECISION (FILE-PRECISION for a single file; -4bit or -full for a qlora run; -checks with
    checks, and checks-SUITE-PRECISION for checks alone)."""
    precision: InferencePrecision = "auto"
    """Precision of the forward pass; auto: what an export's parity gate chose, for a run bf16 where the processor computes
    in it, else fp32."""
    device: Device = "auto"
    """Device; auto: a GPU where there is one."""
    encoder: str | None = None
    """Location of the run's encoder, if it has moved since training; it must be the same one."""
    base: Base = "auto"
    """Encoder under a qlora run's adapter: 4bit, as in training, or full, in full precision, for which the artifact says
    how far the answers agree; auto: as in training."""
    lexicon: LexiconUse = "auto"
    """none: without the model's n-gram expert, by the encoder alone."""
    data: SourceConfig = field(default_factory=SourceConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checks: ChecksConfig = field(default_factory=ChecksConfig)


@dataclass(frozen=True)
class AuditConfig:
    """A search for labels and texts that look wrong."""

    output: str = "audit"
    """Folder for audit.html, issues.csv, tasks.json, labels.xml and summary.json; with `apply`, the table to write: a csv, tsv,
    jsonl or parquet file."""
    run: str | None = None
    """Folder of a finished run on the same labels; its answers count where it was neither trained nor chosen on a text."""
    apply: str | None = None
    """Label Studio's JSON export of the corrected tasks; null: search instead of correct."""
    task: str = "classification"
    """Task that reads the data: classification, or the name of your own that --task-file registers."""
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        """Raise ConfigError if a run is given to correct by."""
        if self.run is not None and self.apply is not None:
            raise ConfigError("run: given, but apply only writes what was corrected; drop one of the two")
