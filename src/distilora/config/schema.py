"""The settings of a run: one frozen dataclass per stage, the single source of recipes, flags, help and reference page.

`config/parse.py` reads recipes and flags into them. `null` means that the run decides; its `run.yaml` records the decision.
"""

import typing
from dataclasses import dataclass, field
from typing import Literal

from distilora.config.limits import SEEDS, require, require_two_columns
from distilora.errors import ConfigError
from distilora.hardware import Device, Precision

C = typing.TypeVar("C")
BackendName = Literal["auto", "torch", "onnx", "openvino"]
TruncationSide = Literal["right", "left", "middle"]
Attention = Literal["auto", "packed", "eager", "sdpa"]
MethodName = Literal["lora", "qlora", "full", "head"]
Base = Literal["auto", "4bit", "full"]
LexiconName = Literal["none", "nbsvm"]
Redundancy = Literal["trigrams", "mmr", "none"]
LexiconUse = Literal["auto", "none"]
CARVED = "carved"  # value of data.validation_split


@dataclass(frozen=True)
class DataConfig:
    """The source of the examples and their division."""

    path: str = "stanfordnlp/imdb"
    """A Hub dataset, 'embedded', a folder or .tar.gz laid out as aclImdb, a csv, tsv, jsonl, json, parquet or xlsx file
    (all but the last two also as .gz or .zst), a folder of such files named after their splits, or one that
    save_to_disk wrote."""
    name: str | None = None
    """Configuration of the Hub dataset, where it has several."""
    revision: str | None = None
    """Branch, tag or commit of the Hub dataset."""
    train_split: str = "train"
    """Split to train on; a single file is taken whole, whatever its name."""
    validation_split: str | None = None
    """Split to choose the checkpoint and the temperature on; 'carved': carved out of the training
    split; null: the split called validation where there is one, else carved."""
    validation_size: int = 1000
    """Examples carved out of the training split for validation; at most a fifth of it is taken."""
    test_split: str = "auto"
    """Split read once, at the end: its name; 'heldout': carved out of the training split; 'none'; 'auto': the split
    called test where there is one, else heldout."""
    test_path: str | None = None
    """Another source for the test split (its split called test, or the file itself)."""
    heldout: float = 0.1
    """Share of the training examples carved out as the final test when `test_split` resolves to heldout; 0: none."""
    train_size: int | None = None
    """Examples to train on, a stratified sample; null: all that the other parts leave."""
    unlabelled: str | None = None
    """Another source, of texts without labels. Copies of a training, validation or test text are removed from it."""
    unlabelled_split: str | None = None
    """Split of the texts without labels; null: the one called unsupervised, else the only one."""
    text_column: str | None = None
    """Column of the text; null: found by name (text, review, sentence, ...)."""
    label_column: str | None = None
    """Column of the label; null: found by name (label, sentiment, class, ...)."""
    label_columns: tuple[str, ...] | None = None
    """Columns of 0 and 1, one for each label (task multilabel), such as [war,love]; null: the labels are in `label_column`."""
    separator: str | None = None
    """Separator of the cells of csv and tsv files, such as ';' or tab; null: detected (comma, semicolon, tab, bar)."""
    group_column: str | None = None
    """Column whose equal values (a film, an author) must not fall on both sides of a split."""
    carve: Literal["random", "consecutive"] = "random"
    """Choice of the held-out and validation examples. random: anywhere; consecutive: neighbours, one stretch of each
    label's examples, so that what stands together (reviews of one film) is divided only at a stretch's ends."""
    order_column: str | None = None
    """Column of numbers that `consecutive` orders the examples by, such as id; null: they keep the source's order."""
    labels: tuple[str | int, ...] | None = None
    """Label names in their order, such as [bad,ok,good]; a label that is not among them is an error. null: the source's
    own, or the values found: numbers by value, words alphabetically."""
    cleaning: Literal["html", "none"] = "html"
    """Step applied to every text before tokenising, recorded with the model."""
    max_length: int = 512
    """Tokens of a text that are read, special tokens included."""
    truncation_side: TruncationSide = "right"
    """Part that is cut out of a longer text: right keeps its beginning, left its end, middle a first quarter of the tokens from
    its beginning and three from its end (128 + 382 of 512: Sun et al. 2019), which only distilora does."""
    fragments: float = 0.0
    """Share of the training texts of which a fragment, one to three of their sentences, is trained on, too, with the text's
    label: so a model of long texts learns to read short ones."""
    deduplicate: bool = True
    """Drop exact copies from the training split (the first stays). Copies in an existing test split are only counted."""
    strict: bool = False
    """A blank text is an error; otherwise it is skipped and counted."""
    seed: int = 0
    """Seed of the splits; the training seed leaves them as they are."""

    def __post_init__(self) -> None:
        """Raise ConfigError if a field is out of range or two contradict each other."""
        require(0 <= self.heldout < 1, "data.heldout", self.heldout, "a share from 0 to below 1")
        require(0 <= self.fragments <= 1, "data.fragments", self.fragments, "a share from 0 to 1")
        require(self.validation_size >= 2, "data.validation_size", self.validation_size, "at least 2")
        require(self.max_length >= 8, "data.max_length", self.max_length, "at least 8")
        require(0 <= self.seed < SEEDS, "data.seed", self.seed, "a whole number from 0 to 2**63 - 1")
        require(self.train_size is None or self.train_size >= 2, "data.train_size", self.train_size, "at least 2")
        require(self.labels is None or len(set(self.labels)) == len(self.labels) >= 2, "data.labels", self.labels,
               "two or more different names")  # fmt: skip
        if self.validation_split == self.train_split:
            raise ConfigError(f"data.validation_split: {self.validation_split} is also trained on; give another split")
        if self.test_split == "heldout" and not self.heldout:
            raise ConfigError("data.heldout: 0 given, but data.test_split is heldout; give a share such as 0.1")
        if self.test_path is not None and self.test_split in ("heldout", "none"):
            raise ConfigError(f"data.test_path: given, but data.test_split is {self.test_split}; drop one of the two")
        if self.unlabelled_split is not None and self.unlabelled is None:
            raise ConfigError(
                "data.unlabelled_split: given without data.unlabelled; drop it, or name the source of the texts"
            )
        if self.order_column is not None and self.carve == "random":
            raise ConfigError(
                "data.order_column: given, but data.carve is random; drop it, or add --data.carve consecutive"
            )
        require_two_columns(self.text_column, self.label_column)
        if self.label_columns is not None and self.label_column is not None:
            raise ConfigError("data.label_columns: given beside data.label_column; drop one of the two")


@dataclass(frozen=True)
class EncoderConfig:
    """The pretrained encoder."""

    name: str = "distilbert/distilbert-base-uncased"
    """A Hub model, a folder as Transformers writes it, or 'embedded' (all-MiniLM-L6-v2 in DistilBERT's layout)."""
    revision: str | None = None
    """Branch, tag or commit of the Hub model."""
    attention: Attention = "auto"
    """Layout of the rows, and attention kernel. packed: one after the other, without padding, by distilora's own kernels;
    eager, sdpa: padded, by Transformers'. auto: packed, unless the encoder's family allows no kernel but its own."""


@dataclass(frozen=True)
class AdapterConfig:
    """The trainable part of the encoder: low-rank updates, W + (alpha / r) B A (LoRA, Hu et al. 2021), all of it, or nothing."""

    method: MethodName = "lora"
    """lora: low-rank updates on a frozen encoder; qlora: the same on 4-bit weights (NF4, Dettmers et al. 2023), a third
    of the bytes, for no gain in time; full: the encoder's own weights; head: nothing but the head."""
    r: int = 16
    """Rank of the update (lora, qlora)."""
    alpha: float = 16.0
    """Scale of the update, divided by r (lora, qlora)."""
    dropout: float = 0.0
    """Dropout before A, in training (lora, qlora)."""
    targets: Literal["all", "attention", "query_value"] | tuple[str, ...] = "all"
    """Linear layers adapted: all of a block, those of its attention, queries and values, or a list of names such as
    [q_lin,v_lin] (lora, qlora)."""
    last_blocks: int | None = None
    """Train in this many upper blocks only; null: in all. The blocks below cost no backward pass."""

    def __post_init__(self) -> None:
        """Raise ConfigError if a field is out of range; what goes with which method, model/adapters/methods.py says."""
        require(self.r >= 1, "adapter.r", self.r, "at least 1")
        require(self.alpha > 0, "adapter.alpha", self.alpha, "a positive number")
        require(0 <= self.dropout < 1, "adapter.dropout", self.dropout, "a share from 0 to below 1")
        require(self.last_blocks is None or self.last_blocks >= 1, "adapter.last_blocks", self.last_blocks,
               "at least 1, or null")  # fmt: skip


@dataclass(frozen=True)
class TrainingConfig:
    """Training of the adapter and the head: AdamW or Muon, warm-up, decay, best checkpoint by validation loss."""

    epochs: int = 3
    """Times every training example is seen."""
    update_size: int = 32
    """Examples per update of the weights; the loss is their mean."""
    token_budget: int | None = None
    """Padded tokens per forward pass, a matter of speed and memory only; null: 2,048 on a CPU, 32,768 on a GPU."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """Optimiser: adamw, or muon (Jordan et al. 2024) for the matrices inside the encoder and AdamW for the rest; where each text is
    seen once or twice, low-rank updates learn more of it by muon."""
    learning_rate: float | None = None
    """Peak learning rate of what is trained inside the encoder; null: 5e-4 for lora and qlora, 5e-5 for full, 1e-3
    for head; by muon, 2.5e-3."""
    head_learning_rate: float | None = None
    """Peak learning rate of the head; null: the encoder's."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay, of matrices only: biases and norms do not decay."""
    warmup: float = 0.1
    """Share of the updates over which the learning rate rises."""
    expert_targets: float = 0.0
    """Share of the n-gram expert's probabilities in the targets of training; the rest is the label. Those of a text come
    from an expert that was fitted without it (out of fold), so that they tell how clear a case it is."""
    class_weights: Literal["none", "balanced", "effective"] = "none"
    """Weights of the classes in the loss: balanced, the inverse of how often a class occurs, or effective, by its effective number
    of examples (Cui et al. 2019), which is milder."""
    sampling: Literal["uniform", "balanced"] = "uniform"
    """Examples of an epoch: every one once, or balanced, as many of each class: those of rare classes several times."""
    logit_adjustment: float = 0.0
    """Share t of t log(share of the class) that is added to the logits in training (Menon et al. 2021), so that rare classes are
    answered more often; 0: none, 1 is usual."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Decay of the learning rate after the warm-up."""
    max_grad_norm: float = 1.0
    """Norm that larger gradients are scaled down to."""
    dropout: float | None = None
    """Dropout inside the encoder and head; null: the model's own on a GPU, none on a CPU, where random masks
    take attention off its fast path and more than double the time of a step."""
    precision: Precision = "auto"
    """Precision of the forward and backward pass; auto: bf16 where the processor computes in it, else fp32."""
    device: Device = "auto"
    """Device; auto: a GPU where there is one."""
    threads: int | None = None
    """Threads to compute on (--threads N for short); null: PyTorch's choice, one per core or OMP_NUM_THREADS. Another
    number may change the last bits of the weights."""
    seed: int = 0
    """Seed of the head's first weights, of the order of examples and of dropout."""
    validations: int = 3
    """Validations over the run, evenly spaced, the last at its end; the best one's weights are kept."""
    patience: int | None = None
    """Stop early after this many validations without a better loss; null: never."""
    checkpoint_every: int = 50
    """Updates between checkpoints; one is also written at each validation and when the run is stopped."""
    cache_gb: float = 4.0
    """Most disk, in GB (10^9 bytes), for states of frozen blocks that are kept between runs, in ~/.cache/distilora or
    $DISTILORA_CACHE; those used longest ago go first. 0: none are kept."""
    tracker: Literal["tensorboard", "wandb", "mlflow", "trackio", "none"] = "tensorboard"
    """Tracker that the curves are logged to; tensorboard writes into the run's folder, the others are services of that name."""

    def __post_init__(self) -> None:
        """Raise ConfigError if a field is out of range."""
        for name in ("epochs", "update_size", "validations", "checkpoint_every"):
            require(getattr(self, name) >= 1, f"training.{name}", getattr(self, name), "at least 1")
        require(0 <= self.seed < SEEDS, "training.seed", self.seed, "a whole number from 0 to 2**63 - 1")
        require(self.threads is None or self.threads >= 1, "training.threads", self.threads, "at least 1, or null")
        require(0 <= self.cache_gb < 1e6, "training.cache_gb", self.cache_gb, "0 or more, below 1000000")
        require(self.max_grad_norm > 0, "training.max_grad_norm", self.max_grad_norm, "a positive number")
        require(self.token_budget is None or self.token_budget >= 8, "training.token_budget", self.token_budget,
               "at least 8, or null")  # fmt: skip
        for name in ("learning_rate", "head_learning_rate"):
            rate = getattr(self, name)
            require(rate is None or rate > 0, f"training.{name}", rate, "a positive number, or null")
            require(rate is None or rate < 1e30, f"training.{name}", rate, "far below 1 (0.0005 is usual for LoRA)")
        require(self.weight_decay >= 0, "training.weight_decay", self.weight_decay, "0 or more")
        require(0 <= self.expert_targets <= 1, "training.expert_targets", self.expert_targets, "a share from 0 to 1")
        require(
            0 <= self.logit_adjustment < 1e3,
            "training.logit_adjustment",
            self.logit_adjustment,
            "0 or more, 1 is usual",
        )
        require(0 <= self.warmup <= 1, "training.warmup", self.warmup, "a share from 0 to 1")
        require(self.dropout is None or 0 <= self.dropout < 1, "training.dropout", self.dropout,
               "a share from 0 to below 1, or null")  # fmt: skip
        require(self.patience is None or self.patience >= 1, "training.patience", self.patience, "at least 1, or null")


@dataclass(frozen=True)
class DistillationConfig:
    """Distillation, with `data.unlabelled`: n-gram expert and encoder label those texts, and the encoder learns from that."""

    epochs: int = 1
    """Times the student sees every labelled and unlabelled example."""
    rate: float = 0.5
    """The student's learning rates, as a share of those of `training`."""
    start: Literal["teacher", "encoder"] = "teacher"
    """Weights that the student starts from: those that the labels alone gave, or those of the pretrained encoder."""
    texts: int | None = None
    """Unlabelled texts to use, a random sample; null: all."""

    def __post_init__(self) -> None:
        """Raise ConfigError if a field is out of range."""
        require(self.epochs >= 1, "distillation.epochs", self.epochs, "at least 1")
        require(0 < self.rate < 1e3, "distillation.rate", self.rate, "a positive number, 1 or less is usual")
        require(self.texts is None or self.texts >= 1, "distillation.texts", self.texts, "at least 1, or null")


@dataclass(frozen=True)
class SummaryConfig:
    """Length and choice of sentences of a summary (task summarization); stored with the model."""

    sentences: int | None = None
    """Sentences of a summary; null: as many as the best choice in the training documents has on average."""
    words: int | None = None
    """Most words of a summary, which has one sentence at least; null: counted in sentences."""
    redundancy: Redundancy = "trigrams"
    """Repetition: trigrams, no sentence repeats three words in a row of another; mmr, maximal marginal relevance: likely sentences
    that resemble those chosen least; or none, nothing is avoided."""

    def __post_init__(self) -> None:
        """Raise ConfigError if a length is out of range, or two are given."""
        for name in ("sentences", "words"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"summary.{name}", value, "at least 1, or null")
        if self.sentences is not None and self.words is not None:
            raise ConfigError("summary.words: given beside summary.sentences; drop one of the two")


@dataclass(frozen=True)
class GenerationConfig:
    """How an encoder-decoder writes (task abstractive_summarization): by beam search, the same in validation and prediction."""

    beams: int = 1
    """Beams of the search; 1: the likeliest token each time."""
    longest: int = 64
    """Most tokens of a text."""
    length_penalty: float = 1.0
    """Exponent of the length that a beam's score is divided by; more favours longer texts."""
    no_repeat: int = 3
    """No sequence of this many tokens is written twice; 0: it may be."""

    def __post_init__(self) -> None:
        """Raise ConfigError if a field is out of range."""
        require(self.beams >= 1, "generation.beams", self.beams, "at least 1")
        require(self.longest >= 1, "generation.longest", self.longest, "at least 1")
        require(
            -10 <= self.length_penalty <= 10,
            "generation.length_penalty",
            self.length_penalty,
            "a number from -10 to 10",
        )
        require(self.no_repeat >= 0, "generation.no_repeat", self.no_repeat, "0 or more")


@dataclass(frozen=True)
class EvaluationConfig:
    """Extent of the evaluation."""

    token_budget: int | None = None
    """Padded tokens per forward pass of prediction; null: 2,048 on a CPU (caches are small), 32,768 on a GPU."""
    bootstrap: int = 1000
    """Resamples behind the 95% intervals (percentile bootstrap over examples)."""
    mistakes: int = 20
    """Most confident mistakes shown with their text."""
    baselines: bool = True
    """Fit n-gram models on the same labels (seconds) and put their figures beside the model's."""

    def __post_init__(self) -> None:
        """Raise ConfigError if a field is out of range."""
        require(self.token_budget is None or self.token_budget >= 8, "evaluation.token_budget", self.token_budget,
               "at least 8, or null")  # fmt: skip
        require(self.bootstrap >= 100, "evaluation.bootstrap", self.bootstrap, "at least 100")
        require(self.mistakes >= 0, "evaluation.mistakes", self.mistakes, "0 or more")


@dataclass(frozen=True)
class RunConfig:
    """A whole run, from data to a measured model."""

    output: str = "runs/imdb"
    """Folder the run writes; it must not hold another run (see --overwrite and --resume)."""
    task: str = "classification"
    """Task to learn: classification, ordinal, regression, multilabel, question_answering, summarization,
    abstractive_summarization, or the name of your own that --task-file registers."""
    lexicon: LexiconName = "none"
    """N-gram expert whose logits are added to the encoder's, by weights fitted on validation; nbsvm: a linear model of
    words, pairs and triples, fitted in seconds on every labelled example that the other parts leave, those beyond
    `data.train_size` included."""
    init_from: str | None = None
    """Finished run whose adapter and head training starts from, on the same encoder; labels may be new, gone or in another order.
    null: from the encoder alone. --init-from RUN for short."""
    data: DataConfig = field(default_factory=DataConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    summary: SummaryConfig = field(default_factory=SummaryConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
