"""
`live export`: publish the ledger's state to Redis again.

Source: LIVE_MODE_GUIDE.md, Files & Artifacts; DESIGN.md section 3, Redis.
"""

from pathlib import Path

import click

from cli.options import choose_stream, ledger_to_read, live_option, reads_ledger, redis_url_options
from cli.publishing import publish_once
from cli.run_options import TTL_SEC_MAX, RedisOptions
from cli.secrets import hide_arguments, redis_url_of
from cli.texts import warn
from domain.errors import AnotherWriter, BadInput, CannotTell
from ledger.application import Ledger
from ledger.lock import token_left_behind
from projections.redis_exchange import Outcome


@click.command()
@reads_ledger
@redis_url_options
@live_option(
    "--ttl",
    type=click.IntRange(min=1, max=TTL_SEC_MAX),
    default=3600,
    show_default=True,
    help="Lifetime of the keys, in seconds.",
)
@live_option("--dead-man", is_flag=True, help="Let state and throttles expire with valid_until.")
@live_option("--adopt", is_flag=True, help="Take another ledger's keys over.")
@click.option("--force", is_flag=True, help="Publish past valid_until too.")
def export(
    ledger: str | None,
    env: str | None,
    exchange: str | None,
    dry_run: bool,
    redis_url: str | None,
    redis_url_file: Path | None,
    ttl: int,
    dead_man: bool,
    adopt: bool,
    force: bool,
) -> None:
    """
    Publish the ledger's state to Redis, as its runner did last.

    Past valid_until nothing is published, unless --force is given. A runner that was killed on
    this machine isn't in the way, one that may live is. Exit codes: 0 published, 2 bad
    usage, 3 stale, no data or Redis is down, 4 the keys are another runner's or ledger's.
    """
    url, warning = redis_url_of(redis_url, redis_url_file)
    if url is None:
        raise BadInput("live export needs a Redis: --redis-url, --redis-url-file or LIVE_REDIS_URL")
    for told in (warning, hide_arguments(url)):
        warn(told)
    options = RedisOptions(url=url, ttl_sec=ttl, dead_man=dead_man, adopt=adopt)
    with Ledger.open(ledger_to_read(ledger), read_only=True) as opened:
        stream_id = choose_stream(opened, env, exchange, dry_run)
        publish_state(options, opened, stream_id, force=force)


def publish_state(options: RedisOptions, ledger: Ledger, stream_id: str, *, force: bool) -> None:
    """
    Publish a stream's state once, and say so.

    Raises:
        AnotherWriter: if the keys are another runner's or ledger's.
        CannotTell: if nothing may be or could be published.
    """
    with token_left_behind(ledger.location, stream_id) as token:
        # Read only now: while it is held, no runner appends.
        stream = ledger.stream(stream_id)
        result = publish_once(options, ledger, stream, force=force, token=token)
    told = f"{stream.id}: {result.outcome.value}" + (f": {result.detail}" if result.detail else "")
    match result.outcome:
        case Outcome.ACCEPTED:
            state = stream.state.trading_state
            held = f", as FROZEN under a hold: {result.detail}" if result.detail else ""
            click.echo(f"published {stream.id} version {stream.version}: {state}{held}")
        case Outcome.FENCED | Outcome.OTHER_LEDGER:
            raise AnotherWriter(f"nothing published for {told}")
        case _:
            raise CannotTell(f"nothing published for {told}")
