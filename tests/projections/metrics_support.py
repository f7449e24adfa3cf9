"""A stream of the core whose every append is metered, served over HTTP and scraped."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from redis_support import Stream
from scraping import Scrape, scrape

from domain.policy import Policy
from ledger.application import StreamState
from projections.metrics import Metrics
from projections.metrics_server import MetricsServer
from projections.metrics_snapshot import About
from projections.views import LedgerPlace

STREAM_ID = "prod:bybit"


class Metered:
    """What a run does with its metrics, by a clock that the test moves."""

    def __init__(self, story: Stream, *symbols: str, env: str = "prod") -> None:
        """
        Begin a run.

        Args:
            story: what is in the ledger already, if its state isn't told from its beginning.
            symbols: those that the run adopts.
        """
        self.story = story
        self.now_ms = story.first
        self._told = 0
        about = About(
            env=env,
            exchange="bybit",
            symbols=symbols or story.state.symbol_names,
            policy=Policy(),
            policy_hash=Policy().hash,
            profile=None,
            interval_ms=60_000,
            started_at_ms=self.now_ms,
            version="1.2.3",
            python="3.11.7",
        )
        self.metrics = Metrics(
            about,
            StreamState(STREAM_ID),
            position=0,
            decided_at_ms=None,
            now_ms=lambda: self.now_ms,
        )
        self.server = MetricsServer("127.0.0.1", 0)
        self.server.serve(self.metrics.page, self.metrics.health)

    def append(self, *, newest_ms: int | None = None) -> None:
        """Meter what the story tells beyond what is metered already, as one append."""
        events, self._told = self.story.events[self._told :], len(self.story.events)
        self.metrics.sampled(newest_ms)
        stream = StreamState(STREAM_ID, self.story.version, self.story.state)
        self.metrics.appended(stream, events, position=self.story.version, at_ms=self.now_ms)

    def tells(self, act: Callable[[Stream], object]) -> Scrape:
        """Let something happen in the story, and return what is told of it."""
        act(self.story)
        self.append()
        return self.scrape()

    def scrape(self) -> Scrape:
        return scrape(self.server.url)

    @property
    def place(self) -> LedgerPlace:
        return LedgerPlace(STREAM_ID, self.story.version, self.story.version)


@contextmanager
def metered(story: Stream, *symbols: str, env: str = "prod") -> Iterator[Metered]:
    run = Metered(story, *symbols, env=env)
    try:
        yield run
    finally:
        run.server.close()
