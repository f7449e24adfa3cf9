"""
`live audit plot`: KPIs against their thresholds, states as bands, overrides and gaps, as a picture.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from cli.audit_options import (
    Audited,
    Span,
    audited,
    open_ledger,
    span_of,
    span_options,
    symbol_option,
)
from cli.options import reads_ledger
from cli.tables import written_atomically
from domain.errors import BadInput

if TYPE_CHECKING:
    from projections.plotting import Picture

SCALE: Final = 2.0
"""How many pixels of a PNG there are to one of the picture's."""


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@reads_ledger
@span_options
@symbol_option("Only this symbol. [default: the first ten]")
def plot(file: Path, symbol: str | None, **given: Any) -> None:
    """
    Draw what happened into FILE, an SVG or a PNG by its ending.

    A panel for each KPI, with its thresholds dashed; the state as bands, gaps in grey, overrides in
    purple. Times are UTC. Exit codes: 0 fine, 2 bad usage, 3 nothing is recorded there, 5 the
    ledger or its history is damaged.
    """
    suffix = file.suffix.lower()
    if suffix not in {".svg", ".png"}:
        raise BadInput(f"FILE: expected the ending .svg or .png, was {file}")
    span = span_of(given)
    with open_ledger(given) as ledger:
        stream = audited(ledger, given)
        stream.check_symbol(symbol)
        stream.check_span(span)
        picture = picture_in(stream, span, symbol)
    for note in picture.notes:
        click.echo(note, err=True)
    content = drawn(picture, suffix)
    with written_atomically(file) as temporary:
        temporary.write(content)
    click.echo(f"written: {file}", err=True)


def picture_in(stream: Audited, span: Span, symbol: str | None = None) -> "Picture":
    """Return the picture of a span, of the history beside the ledger and what comes after it."""
    from projections.history import open_history  # noqa: PLC0415 - imports pyarrow
    from projections.history_manifest import default_folder  # noqa: PLC0415
    from projections.plotting import picture_of  # noqa: PLC0415

    folder = default_folder(stream.ledger.location.path)
    history = open_history(folder, ledger=stream.ledger, stream_id=stream.id)
    return picture_of(history, from_ms=span.from_ms, to_ms=span.to_ms, symbol=symbol)


def drawn(picture: "Picture", suffix: str) -> bytes:
    """
    Return a picture as `.svg` or `.png`.

    Raises:
        BadInput: if what draws it isn't installed.
    """
    try:
        import vl_convert  # noqa: PLC0415 - an extra
    except ImportError:
        raise BadInput("drawing needs an extra: pip install 'live-ledger[plot]'") from None
    spec = msgspec.json.encode(picture.spec).decode()
    if suffix == ".svg":
        return str(vl_convert.vegalite_to_svg(spec)).encode()
    return bytes(vl_convert.vegalite_to_png(spec, scale=SCALE))
