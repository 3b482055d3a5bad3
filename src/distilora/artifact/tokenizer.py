"""Opens an artifact's tokenizer with the artifact's truncation, which tokenizer.json alone may not hold."""

from tokenizers import Tokenizer

from distilora.artifact.format import Artifact
from distilora.batching.tokens import read_tokenizer


def open_tokenizer(artifact: Artifact) -> Tokenizer:
    """Read the tokenizer that the artifact's texts are encoded with. Raises ArtifactError if it is missing or broken."""
    return read_tokenizer(artifact.folder / "tokenizer.json", artifact.max_length, artifact.truncation_side)
