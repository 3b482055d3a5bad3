"""Arguments that commands share; what argparse objects to is a ConfigError, printed as one line."""

import argparse
from typing import NoReturn

from distilora.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """A command's parser."""

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError."""
        raise ConfigError(f"{message}; see {self.prog} --help")


def add_run(parser: Parser) -> None:
    """The run that a command works with, its first argument."""
    parser.add_argument("run", metavar="RUN", help="folder of a finished run, or its model/")


def add_loading(parser: Parser) -> None:
    """How its model is loaded: what `predict.load` takes."""
    parser.add_argument("--backend", choices=["auto", "torch", "onnx"], default="auto",
                        help="auto: onnx for a folder exported so, else torch (default)")  # fmt: skip
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32", "int8"], default="auto",
                        help="auto: what an export's gate chose; of a run bf16 where it is native")  # fmt: skip
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="auto: a GPU if any")
    parser.add_argument("--encoder", help="where the run's encoder lies now, if not where it lay in training")
    parser.add_argument("--base", choices=["auto", "4bit", "full"], default="auto",
                        help="what a qlora run's adapter is put on; auto: 4bit, as in training")  # fmt: skip


def add_answering(parser: Parser) -> None:
    """How its model is loaded and when it abstains."""
    add_loading(parser)
    parser.add_argument("--abstain-below", metavar="P", type=float, default=0.0,
                        help="answers less probable than P say abstain (default: 0)")  # fmt: skip
