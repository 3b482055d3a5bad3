"""The limits of the service: what a request may hold, what may wait, and how much is computed at once."""

from dataclasses import dataclass

from distilora.config.limits import require


@dataclass(frozen=True)
class Limits:
    """Limits of the service; every one is named in the error of a request beyond it."""

    body_bytes: int = 2_000_000
    """Most bytes of a request's body."""
    inputs: int = 512
    """Most inputs of a request."""
    characters: int = 100_000
    """Most characters of an input."""
    request_tokens: int = 262_144
    """Most tokens of a request, as the encoder reads them."""
    waiting_tokens: int = 524_288
    """Most tokens that wait; a request that would exceed them is refused whole."""
    batch_tokens: int = 2_048
    """Tokens computed at once in a lane; an input that is longer is computed alone."""
    lanes: int | None = None
    """Batches computed at once, each on one core; null: one per core."""
    timeout_ms: int = 30_000
    """Longest time from a request's arrival to its answer; a request may ask for less."""
    json_depth: int = 32
    """Deepest nesting of a JSON body."""

    @property
    def most_tokens(self) -> tuple[int, str]:
        """Most tokens of a request, and the limit that says so: what can never wait cannot be admitted."""
        return min((self.request_tokens, "request_tokens"), (self.waiting_tokens, "waiting_tokens"))

    def __post_init__(self) -> None:
        """Raise ConfigError if a limit is less than 1."""
        for name, value in vars(self).items():
            require(value is None or value >= 1, f"limits.{name}", value, "at least 1")
