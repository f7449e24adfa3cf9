"""
What people ask a history first, as SQL over its tables: episodes, uptime, statistics of KPIs.
"""

from typing import Final

_STREAM: Final = "env, exchange, dry_run"

_SPANS: Final = f"""
SELECT {_STREAM}, ledger_version, to_state AS state, happened_at AS started_at,
    lead(happened_at) OVER stream AS ended_at
FROM transitions
WINDOW stream AS (PARTITION BY {_STREAM} ORDER BY ledger_version)
"""
"""The global state's periods from the first transition on; the last one has no end."""

EPISODES: Final = f"""
WITH spans AS (
    SELECT *, lead(happened_at) OVER stream AS ended_at, lead(to_state) OVER stream AS next_state,
        lead(ledger_version) OVER stream AS next_version, lead(cause) OVER stream AS ended_by,
        lead(reasons) OVER stream AS end_reasons
    FROM transitions
    WINDOW stream AS (PARTITION BY {_STREAM} ORDER BY ledger_version)
), measured AS (
    SELECT spans.*, interval_ms,
        epoch_ms(happened_at) AS start_ms,
        coalesce(epoch_ms(ended_at), greatest(epoch_ms(happened_at), epoch_ms(last_window_end)))
            AS end_ms
    FROM spans JOIN streams USING ({_STREAM})
    WHERE to_state <> 'ACTIVE'
), gaps AS (
    SELECT {_STREAM}, epoch_ms(window_start) AS gap_start, epoch_ms(window_end) AS gap_end
    FROM incidents WHERE kind = 'gap'
), missing AS (
    SELECT measured.ledger_version, measured.env, measured.exchange, measured.dry_run,
        sum(least(end_ms, gap_end) // interval_ms - greatest(start_ms, gap_start) // interval_ms)
            AS gap_windows
    FROM measured JOIN gaps USING ({_STREAM})
    WHERE gap_start < end_ms AND gap_end > start_ms
    GROUP BY ALL
), applied AS (
    SELECT a.*, (SELECT min(e.ledger_version) FROM overrides e
        WHERE e.event = 'ended' AND e.override_id = a.override_id
            AND (e.env, e.exchange, e.dry_run) = (a.env, a.exchange, a.dry_run)
            AND e.ledger_version > a.ledger_version) AS ended_version
    FROM overrides a WHERE a.event = 'applied'
), meanwhile AS (
    SELECT measured.ledger_version, measured.env, measured.exchange, measured.dry_run,
        list(concat(applied.kind, CASE WHEN cap IS NULL THEN '' ELSE format(' {{:g}}', cap) END,
            CASE WHEN symbol IS NULL THEN '' ELSE ' ' || symbol END, ' by ', applied.actor, ': ',
            applied.reason) ORDER BY applied.ledger_version) AS overrides
    FROM measured JOIN applied USING ({_STREAM})
    WHERE (applied.ledger_version < measured.ledger_version AND applied.kind <> 'unfreeze'
            AND coalesce(ended_version > measured.ledger_version, true))
        OR (applied.ledger_version > measured.ledger_version
            AND coalesce(applied.ledger_version < next_version, true))
    GROUP BY ALL
)
SELECT env, exchange, dry_run, ledger_version, position, to_state AS state, throttle,
    happened_at AS started_at, ended_at, end_ms - start_ms AS duration_ms,
    from_state AS previous_state, next_state, cause, reasons, triggered_by,
    kpi, kpi_verdict, value, comparator, threshold,
    abs(value - threshold) AS margin, no_data_windows,
    end_ms // interval_ms - start_ms // interval_ms AS windows,
    coalesce(gap_windows, 0)::BIGINT AS gap_windows,
    CASE WHEN ended_by = 'recovery' THEN windows END AS windows_to_recover,
    ended_by, end_reasons, coalesce(meanwhile.overrides, []) AS overrides
FROM measured LEFT JOIN missing USING ({_STREAM}, ledger_version)
    LEFT JOIN meanwhile USING ({_STREAM}, ledger_version)
ORDER BY {_STREAM}, ledger_version
"""
"""
A row a period in COOLDOWN or FROZEN. A window belongs to the one that its end lies in; an episode
that is still open has no `ended_at`, and lasts to the end of the last window.
"""

UPTIME: Final = f"""
WITH spans AS (
    {_SPANS}
    UNION ALL
    SELECT {_STREAM}, 0, coalesce(first_state, state), first_window_start, first_at
    FROM streams LEFT JOIN (
        SELECT {_STREAM}, arg_min(from_state, ledger_version) AS first_state,
            arg_min(happened_at, ledger_version) AS first_at
        FROM transitions GROUP BY {_STREAM}
    ) USING ({_STREAM})
), bounded AS (
    SELECT spans.* EXCLUDE (started_at, ended_at),
        greatest(started_at, first_window_start) AS started_at,
        least(coalesce(ended_at, last_window_end), last_window_end) AS ended_at
    FROM spans JOIN streams USING ({_STREAM})
), days AS (
    SELECT {_STREAM}, state, day::DATE AS day, greatest(started_at, day) AS started_at,
        least(ended_at, day + INTERVAL 1 DAY) AS ended_at
    FROM bounded, unnest(generate_series(
        time_bucket(INTERVAL 1 DAY, started_at), ended_at, INTERVAL 1 DAY)) AS each(day)
    WHERE ended_at > started_at
), missing AS (
    SELECT days.*, sum(epoch_ms(least(days.ended_at, window_end))
        - epoch_ms(greatest(days.started_at, window_start)))
        FILTER (window_start IS NOT NULL) AS gap_ms
    FROM days LEFT JOIN (SELECT * FROM incidents WHERE kind = 'gap') AS gaps ON
        (gaps.env, gaps.exchange, gaps.dry_run) = (days.env, days.exchange, days.dry_run)
        AND window_start < days.ended_at AND window_end > days.started_at
    WHERE days.ended_at > days.started_at
    GROUP BY ALL
)
SELECT {_STREAM}, day, state,
    (sum(epoch_ms(ended_at) - epoch_ms(started_at)) / 1000)::DOUBLE AS seconds,
    seconds / sum(seconds) OVER (PARTITION BY {_STREAM}, day) AS share,
    (coalesce(sum(gap_ms), 0) / 1000)::DOUBLE AS gap_seconds
FROM missing GROUP BY {_STREAM}, day, state ORDER BY {_STREAM}, day, state
"""
"""
A row a state and UTC day, from the first window to the end of the last: how long it held, its share
of what is recorded of the day, and for how much of it the runner was down.
"""

KPI_STATS: Final = f"""
SELECT {_STREAM}, day, symbol, kpi, count(*) AS windows, count(value) AS judged,
    count(*) FILTER (verdict = 'WARN') AS warn, count(*) FILTER (verdict = 'CRIT') AS crit,
    count(*) FILTER (no_data_windows > 0) AS no_data, count(*) FILTER (excused) AS excused,
    min(value) AS min, avg(value) AS mean, median(value) AS median,
    quantile_cont(value, 0.95) AS p95, max(value) AS max,
    arg_max(threshold, ledger_version) AS last_threshold
FROM kpis GROUP BY {_STREAM}, day, symbol, kpi ORDER BY {_STREAM}, day, symbol, kpi
"""
"""A row a KPI, symbol and UTC day: how its values lay, and how often it was not OK."""

NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "episodes": ("transitions", "incidents", "overrides"),
    "uptime": ("transitions", "incidents"),
    "kpi_stats": ("kpis",),
}
"""By view: the tables that it reads."""

MEANINGS: Final[dict[str, str]] = {
    "streams": "a row a stream: its ledger, interval, first and last window, state now",
    "episodes": "a row a period in COOLDOWN or FROZEN: cause, trigger, length, what ended it",
    "uptime": "a row a state and UTC day: seconds, share of the day, seconds that were gaps",
    "kpi_stats": "a row a KPI, symbol and UTC day: least, mean, median, p95, most, verdicts",
}
"""By view: what it gives."""
