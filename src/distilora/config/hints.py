"""Finds the setting or option meant by an unknown name: by what other tools call it, or the nearest in spelling.

A hint is always something that the same command accepts.
"""

import difflib
from collections.abc import Iterable, Sequence

# Names in other tools (Transformers' TrainingArguments, PEFT, SetFit, common scripts), by our own; of several own names the
# first that the command has is meant.
_ALIASES_OF = {
    ("data.path",): "dataset dataset_name dataset_path data_dir data_file data_files data_path train_file "
    "train_path input",
    ("data.name",): "dataset_config dataset_config_name",
    ("data.test_path",): "test_file test_data",
    ("data.heldout",): "test_size test_fraction held_out",
    ("data.validation_split",): "val_split eval_split",
    ("data.validation_size",): "val_size",
    ("data.split", "data.train_split"): "split",
    ("data.train_size",): "max_train_samples max_samples limit",
    ("data.text_column",): "text text_field text_column_name",
    ("data.label_column",): "label label_field label_column_name target_column",
    ("data.labels",): "label_names num_labels classes",
    ("data.max_length",): "max_len max_seq_len max_seq_length max_tokens",
    ("data.deduplicate",): "dedup",
    ("encoder.name", "encoder"): "model model_name model_name_or_path model_path base_model pretrained encoder_name",
    ("encoder.revision",): "model_revision",
    ("encoder.attention",): "attn_implementation",
    ("adapter.method",): "peft lora qlora",
    ("adapter.method", "base"): "load_in_4bit",
    ("adapter.r",): "rank lora_r lora_rank",
    ("adapter.alpha",): "lora_alpha",
    ("adapter.dropout",): "lora_dropout",
    ("adapter.targets",): "target_modules lora_target_modules",
    ("training.learning_rate",): "lr learning_rate",
    ("training.head_learning_rate",): "head_lr",
    ("training.epochs",): "epoch epochs num_epochs num_train_epochs max_epochs",
    ("training.update_size", "evaluation.token_budget"): "batch batch_size",
    ("training.update_size",): "train_batch_size per_device_train_batch_size gradient_accumulation_steps",
    ("evaluation.token_budget",): "eval_batch_size per_device_eval_batch_size",
    ("training.token_budget", "evaluation.token_budget"): "max_tokens_per_batch",
    ("training.weight_decay",): "wd",
    ("training.warmup",): "warmup_ratio warmup_steps",
    ("training.schedule",): "scheduler lr_scheduler lr_scheduler_type",
    ("training.max_grad_norm",): "clip grad_clip gradient_clip",
    ("training.dropout",): "dropout",
    ("training.precision", "precision"): "bf16 fp16 fp32 dtype torch_dtype mixed_precision",
    ("training.device", "device"): "cpu use_cpu no_cuda gpu cuda gpus",
    ("training.seed",): "seed random_seed random_state",
    ("data.seed",): "data_seed split_seed",
    ("training.patience",): "early_stopping early_stopping_patience",
    ("training.validations",): "eval_steps",
    ("training.checkpoint_every",): "save_steps",
    ("training.tracker",): "report_to logger",
    ("evaluation.bootstrap",): "n_bootstrap resamples",
    ("evaluation.mistakes",): "num_mistakes",
    ("output",): "o out out_dir output_dir output_path run_name save_dir",
    ("overwrite",): "force overwrite_output_dir",
    ("resume",): "resume_from_checkpoint checkpoint continue",
    ("threads", "workers"): "n_jobs",
    ("threads",): "j num_threads cpus",
    ("workers", "threads"): "num_workers",
    ("quiet",): "q silent verbose",
}  # fmt: skip
ALIASES = {alias: settings for settings, aliases in _ALIASES_OF.items() for alias in aliases.split()}


def nearest(name: str, accepted: Iterable[str]) -> str | None:
    """Return the accepted name that `name` means, or None where none comes near. All are given without leading dashes.

    A name matches as a whole or by what follows its last dot; case and the choice of - or _ do not matter.
    """
    names = {_plain(key): key for key in accepted}
    whole = _plain(name)
    *_, last = whole.split(".")
    if whole in names:
        return names[whole]
    endings: dict[str, list[str]] = {}
    for key in names:
        endings.setdefault(key.rsplit(".", 1)[-1], []).append(key)
    settings = [setting for word in (whole, last) for setting in ALIASES.get(word, ()) if _plain(setting) in names]
    if settings:
        return names[_plain(settings[0])]
    if last in endings:
        return names[_closest(whole, endings[last])]
    matches = difflib.get_close_matches(whole, names, 1, 0.75)
    if matches:
        return names[matches[0]]
    matches = difflib.get_close_matches(last, endings, 1, 0.6)
    if matches:
        return names[_closest(whole, endings[matches[0]])]
    completions = [key for key in names if len(whole) >= 2 and key.startswith(whole)]
    return names[completions[0]] if len(completions) == 1 else None


def _closest(name: str, candidates: Sequence[str]) -> str:
    return max(candidates, key=lambda candidate: difflib.SequenceMatcher(None, name, candidate).ratio())


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
