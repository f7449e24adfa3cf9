"""
The gate passes what keeps every threshold, fails what doesn't, and never concludes from the rest.

The artifacts are a real run's, copied and then edited for each case.
"""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from cli.gate import PAUSE_SEC, READ_ATTEMPTS, gate, read_settled
from cli.main import live
from cli.options import ARTIFACTS_FOLDER
from domain.kpis import KPI_BY_NAME, KPIS, Kpi
from domain.windows import format_time, parse_time
from projections.artifacts import DECISION, REPORT, SUMMARY
from projections.gate import (
    FILE_BYTES_MAX,
    ArtifactsRead,
    GateLimits,
    Outcome,
    judge,
    read_artifacts,
)

ROOT = Path(__file__).parent.parent
FILES = (SUMMARY, DECISION, REPORT)
SYMBOLS = ("BTCUSDT", "ETHUSDT")
DEFAULTS = {kpi.name: kpi.threshold for kpi in KPIS}
NUMBER_OF_CHECKS = len(FILES) + 5 + len(SYMBOLS) * (1 + len(KPIS))

Json = dict[str, Any]
Made = Callable[[str, int], Path]


@pytest.fixture(autouse=True)
def without_variables_and_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.gate.PAUSE_SEC", 0.0)
    for name in [name for name in os.environ if name.startswith("LIVE_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """
    Return a function that makes a scenario's artifacts with the real command, once each.

    Each in a folder of its own, and without --ledger, so that the mock feed tells its past.
    """
    kept: dict[tuple[str, int], Path] = {}

    def make(scenario: str, iterations: int) -> Path:
        if (scenario, iterations) not in kept:
            folder = tmp_path_factory.mktemp(scenario)
            done = run_module(
                "cli.main",
                *("run", "--dry-run", "--quiet", "--symbols", ",".join(SYMBOLS)),
                *("--feed", f"mock://{scenario}", "--iterations", str(iterations)),
                *("--ramp-profile", "B"),
                folder=folder,
            )
            assert done.returncode == 0, done.stderr
            kept[scenario, iterations] = folder / ARTIFACTS_FOLDER
        return kept[scenario, iterations]

    return make


@pytest.fixture
def healthy(made: Made, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made("healthy", 1), tmp_path / "latest"))


def run_module(module: str, *args: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run `python -W error -m module args` where none of our variables is set."""
    variables = {name: value for name, value in os.environ.items() if name[:5] != "LIVE_"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", module, *args],
        cwd=folder,
        env=variables | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def edit(folder: Path, change: Callable[[Json], object], *names: str) -> None:
    """Change the JSON of the named files, the summary's where none is named."""
    for name in names or (SUMMARY,):
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))


def set_kpi(folder: Path, symbol: str, kpi: str, value: float | None) -> None:
    edit(folder, lambda summary: summary["kpis"]["per_symbol"][symbol].update({kpi: value}))


def ask(folder: Path, *options: str) -> tuple[int, Json]:
    """Return the gate's exit code and its JSON, which must agree."""
    done = CliRunner().invoke(live, ["gate", "--path", str(folder), "--json", *options])
    assert isinstance(done.exception, SystemExit | None), done.exception
    answer = json.loads(done.stdout)
    assert answer["exit_code"] == done.exit_code
    assert answer["exit_code"] == Outcome(answer["outcome"]).exit_code
    return done.exit_code, answer


def not_passed(answer: Json) -> list[tuple[str, str | None, str]]:
    return [
        (check["name"], check["subject"], check["outcome"])
        for check in answer["checks"]
        if check["outcome"] != "PASS"
    ]


def sentence(answer: Json, name: str, subject: str | None = None) -> str:
    (found,) = [c for c in answer["checks"] if (c["name"], c["subject"]) == (name, subject)]
    return str(found["sentence"])


def beyond(kpi: Kpi) -> float:
    """Return the nearest value on the wrong side of the default threshold."""
    return math.nextafter(kpi.threshold, -math.inf if kpi.breached_when == "<" else math.inf)


# PASS, and how it is told


def test_the_artifacts_of_a_healthy_run_pass_with_every_check_told(healthy: Path) -> None:
    code, answer = ask(healthy)
    assert (code, answer["outcome"]) == (0, "PASS")
    assert not_passed(answer) == []
    assert len(answer["checks"]) == NUMBER_OF_CHECKS
    assert answer["ledger"] == json.loads((healthy / SUMMARY).read_text())["ledger"]
    assert answer["ledger"]["stream"] == "dev:bybit:dry-run"


def test_the_guides_command_line_passes_word_for_word(healthy: Path) -> None:
    set_kpi(healthy, "BTCUSDT", "edge_bps", 3.19)
    done = run_module(
        "tools.live.ci_gates.live_gate",
        *("--path", str(healthy), "--min_edge", "2.5", "--min_maker_taker", "0.83"),
        *("--max_risk", "0.40", "--max_latency", "350"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "PASS  BTCUSDT  edge_bps=3.19 >= 2.5" in lines
    assert "PASS  -        state=ACTIVE" in lines
    assert lines[-1] == "gate: PASS"
    assert len(lines) == NUMBER_OF_CHECKS + 1


@pytest.mark.parametrize("module", ["cli.main", "tools.live.ci_gates.live_gate"])
def test_the_process_ends_with_the_exit_code(healthy: Path, module: str) -> None:
    words = ["gate"] if module == "cli.main" else []
    failed = run_module(module, *words, "--path", str(healthy), "--max_latency", "1")
    assert (failed.returncode, failed.stderr) == (1, "")
    assert failed.stdout.splitlines()[-1] == f"gate: FAIL (2 of {NUMBER_OF_CHECKS} checks)"
    unknown = run_module(module, *words, "--path", str(healthy / "nowhere"))
    assert (unknown.returncode, unknown.stderr) == (3, "")
    assert unknown.stdout.splitlines()[-1] == "gate: CAN'T TELL (1 of 1 checks)"
    wrong = run_module(module, *words, "--path", str(healthy), "--max_risk", "nan")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "Error: --max_risk: expected a finite number from 0, was nan\n"


@pytest.mark.parametrize(("max_age", "code"), [("0", 0), ("0.001", 3)])
def test_a_reader_that_is_gone_does_not_change_the_exit_code(
    healthy: Path, max_age: str, code: int
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", "gate", "--path", str(healthy), "--max-age", max_age],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == code


def test_the_lines_are_aligned_and_the_last_one_counts(healthy: Path) -> None:
    set_kpi(healthy, "BTCUSDT", "edge_bps", 2.4999)
    set_kpi(healthy, "ETHUSDT", "risk_ratio", None)
    done = CliRunner().invoke(live, ["gate", "--path", str(healthy)])
    assert done.exit_code == 3
    lines = done.stdout.splitlines()
    assert "FAIL     BTCUSDT  edge_bps=2.4999 < 2.5" in lines
    assert "UNKNOWN  ETHUSDT  risk=no data, required" in lines
    assert "PASS     -        state=ACTIVE" in lines
    assert lines[-1] == f"gate: CAN'T TELL (1 of {NUMBER_OF_CHECKS} checks; 1 FAIL)"


def test_a_check_in_json_holds_what_a_pass_takes(healthy: Path) -> None:
    set_kpi(healthy, "ETHUSDT", "risk_ratio", 0.45)
    _, answer = ask(healthy)
    (check,) = [check for check in answer["checks"] if check["outcome"] == "FAIL"]
    assert check == {
        "name": "risk_ratio",
        "subject": "ETHUSDT",
        "outcome": "FAIL",
        "sentence": "risk=0.45 > 0.40",
        "value": 0.45,
        "comparator": "<=",
        "threshold": 0.4,
    }


def test_unknown_extra_keys_are_fine(healthy: Path) -> None:
    edit(healthy, lambda content: content.update(from_a_newer_version=[1]), SUMMARY, DECISION)
    edit(healthy, lambda summary: summary["ledger"].update(more=True))
    edit(healthy, lambda summary: summary["kpis"]["per_symbol"]["BTCUSDT"].update(skew=None))
    assert ask(healthy)[0] == 0


# Thresholds


@pytest.mark.parametrize("kpi", KPIS, ids=lambda kpi: kpi.name)
def test_a_value_equal_to_its_threshold_passes_and_the_next_one_fails(
    healthy: Path, kpi: Kpi
) -> None:
    set_kpi(healthy, "ETHUSDT", kpi.name, kpi.threshold)
    assert ask(healthy)[0] == 0
    set_kpi(healthy, "ETHUSDT", kpi.name, beyond(kpi))
    code, answer = ask(healthy)
    assert code == 1
    assert not_passed(answer) == [(kpi.name, "ETHUSDT", "FAIL")]


@pytest.mark.parametrize("kpi", KPIS, ids=lambda kpi: kpi.name)
@pytest.mark.parametrize("dashed", [False, True])
def test_every_kpi_has_an_option_in_both_spellings_and_a_variable(
    healthy: Path, kpi: Kpi, dashed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = 0.5 if kpi.name != "edge_bps" else 3.0
    set_kpi(healthy, "BTCUSDT", kpi.name, value)
    set_kpi(healthy, "ETHUSDT", kpi.name, value)
    stricter = str(value + 0.1 if kpi.breached_when == "<" else value - 0.1)
    name = kpi.gate_option.replace("_", "-") if dashed else kpi.gate_option
    broken = [(kpi.name, "BTCUSDT", "FAIL"), (kpi.name, "ETHUSDT", "FAIL")]
    assert not_passed(ask(healthy, f"--{name}", stricter)[1]) == broken
    assert not_passed(ask(healthy, f"--{name}", str(value))[1]) == []
    monkeypatch.setenv(f"LIVE_{kpi.gate_option.upper()}", stricter)
    assert not_passed(ask(healthy)[1]) == broken


@given(
    kpi=st.sampled_from(KPIS),
    value=st.floats(allow_nan=False, allow_infinity=False),
    threshold=st.floats(0, 1),
)
def test_the_gate_judges_every_value_as_the_domain_does(
    made: Made, kpi: Kpi, value: float, threshold: float
) -> None:
    found = read_artifacts(made("healthy", 1))
    assert found.summary is not None
    values = dict(found.summary.kpis.per_symbol)
    values["BTCUSDT"] = values["BTCUSDT"] | {kpi.name: value}
    kpis = msgspec.structs.replace(found.summary.kpis, per_symbol=values)
    found = msgspec.structs.replace(
        found, summary=msgspec.structs.replace(found.summary, kpis=kpis)
    )
    limits = GateLimits(DEFAULTS | {kpi.name: threshold}, max_age_sec=0)
    result = judge(found, limits, now_ms=2**42)
    (check,) = [c for c in result.checks if (c.name, c.subject) == (kpi.name, "BTCUSDT")]
    if not kpi.is_valid(value):
        assert check.outcome is Outcome.UNKNOWN
    else:
        breached = kpi.is_breached(value, threshold)
        assert check.outcome is (Outcome.FAIL if breached else Outcome.PASS)
    assert result.exit_code in {0, 1, 3}
    assert result.exit_code > 0 or check.outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--min_edge", "nan"], "--min_edge: expected a finite number, was nan"),
        (["--max_anomaly", "inf"], "--max_anomaly: expected a finite number, was inf"),
        (["--min_maker_taker", "83"], "--min_maker_taker: expected a finite number from 0 to 1"),
        (["--max_latency", "-1"], "--max_latency: expected a finite number from 0, was -1"),
        (["--max-age", "-1"], "--max-age: expected seconds from 0 (any age), was -1"),
        (["--max-age", "inf"], "--max-age: expected seconds from 0 (any age), was inf"),
        (["--max-age", "nan"], "--max-age: expected seconds from 0 (any age), was nan"),
        (["--env", "PROD"], "--env: expected 1 to 32 of a-z 0-9 _ -"),
        (["--env", ""], "--env: expected 1 to 32 of a-z 0-9 _ -"),
    ],
)
def test_a_wrong_option_is_bad_usage_before_anything_is_read(
    healthy: Path, options: list[str], told: str
) -> None:
    done = CliRunner().invoke(live, ["gate", "--path", str(healthy), *options])
    assert getattr(done.exception, "exit_code", None) == 2
    assert told in str(done.exception)
    assert done.stdout == ""


# The controller's own conclusion


def test_a_frozen_run_fails_with_the_reasons_of_its_decision(made: Made) -> None:
    frozen = made("incident", 40)
    code, answer = ask(frozen)
    assert code == 1
    assert not_passed(answer) == [
        ("state", None, "FAIL"),
        ("throttle", "BTCUSDT", "FAIL"),
        ("edge_bps", "BTCUSDT", "FAIL"),
        ("risk_ratio", "BTCUSDT", "FAIL"),
    ]
    reasons = json.loads((frozen / DECISION).read_text())["reasons"]
    assert [sentence(answer, name, "BTCUSDT") for name in ("edge_bps", "risk_ratio")] == reasons


def test_a_run_that_is_still_frozen_fails_though_its_kpis_are_well_again(made: Made) -> None:
    code, answer = ask(made("incident", 45))
    assert code == 1
    assert not_passed(answer) == [("state", None, "FAIL"), ("throttle", "BTCUSDT", "FAIL")]


def test_cooldown_passes_if_the_kpis_keep_the_thresholds_asked_for(made: Made) -> None:
    cooldown = made("warn", 9)
    assert json.loads((cooldown / SUMMARY).read_text())["state"] == "COOLDOWN"
    assert ask(cooldown)[0] == 1
    code, answer = ask(cooldown, "--max_latency", "500")
    assert (code, not_passed(answer)) == (0, [])


def test_a_frozen_state_fails(healthy: Path) -> None:
    change = {"state": "FROZEN", "throttle": 0.0}
    edit(healthy, lambda content: content.update(change), SUMMARY, DECISION)
    code, answer = ask(healthy)
    assert (code, not_passed(answer)) == (1, [("state", None, "FAIL")])


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_a_symbol_that_is_frozen_on_its_own_fails(healthy: Path, zero: float) -> None:
    def freeze(content: Json) -> None:
        content["per_symbol_throttle"]["ETHUSDT"] = zero

    edit(healthy, freeze, SUMMARY, DECISION)
    code, answer = ask(healthy)
    assert (code, not_passed(answer)) == (1, [("throttle", "ETHUSDT", "FAIL")])


def test_a_symbol_beyond_the_profiles_limit_is_not_ill(healthy: Path) -> None:
    edit(healthy, lambda summary: summary["effective_throttle"].update(ETHUSDT=0.0))
    assert ask(healthy)[0] == 0


@pytest.mark.parametrize("throttle", [0.0, -0.5, 1.5])
def test_a_global_throttle_that_contradicts_the_state_is_unknown(
    healthy: Path, throttle: float
) -> None:
    edit(healthy, lambda content: content.update(throttle=throttle), SUMMARY, DECISION)
    code, answer = ask(healthy)
    assert (code, not_passed(answer)) == (3, [("state", None, "UNKNOWN")])


# Data that isn't there


@pytest.mark.parametrize("kpi", [kpi.name for kpi in KPIS if kpi.required])
@pytest.mark.parametrize("is_null", [True, False])
def test_a_missing_required_kpi_is_exit_3_even_when_others_fail(
    healthy: Path, kpi: str, is_null: bool
) -> None:
    other = next(other for other in KPIS if other.name != kpi)
    set_kpi(healthy, "BTCUSDT", other.name, beyond(other))
    if is_null:
        set_kpi(healthy, "ETHUSDT", kpi, None)
    else:
        edit(healthy, lambda summary: summary["kpis"]["per_symbol"]["ETHUSDT"].pop(kpi))
    code, answer = ask(healthy)
    assert code == 3
    assert not_passed(answer) == [(other.name, "BTCUSDT", "FAIL"), (kpi, "ETHUSDT", "UNKNOWN")]
    assert len(answer["checks"]) == NUMBER_OF_CHECKS


def test_a_missing_optional_kpi_passes_with_a_note(healthy: Path) -> None:
    set_kpi(healthy, "BTCUSDT", "anomaly_score", None)
    code, answer = ask(healthy)
    assert code == 0
    assert sentence(answer, "anomaly_score", "BTCUSDT") == "anomaly absent, not required"


def test_a_missing_optional_kpi_that_the_controller_misses_is_unknown(healthy: Path) -> None:
    violation = {
        "symbol": "BTCUSDT", "kpi": "anomaly_score", "verdict": "WARN", "no_data_windows": 1,
        "reason": "anomaly=no data (1 windows)",
        "value": None, "comparator": None, "threshold": None, "margin": None,
    }  # fmt: skip
    edit(healthy, lambda summary: summary.update(violations=[violation]))
    assert ask(healthy)[0] == 0
    set_kpi(healthy, "ETHUSDT", "anomaly_score", None)
    assert ask(healthy)[0] == 0
    set_kpi(healthy, "BTCUSDT", "anomaly_score", None)
    code, answer = ask(healthy)
    assert (code, not_passed(answer)) == (3, [("anomaly_score", "BTCUSDT", "UNKNOWN")])


def test_an_outage_is_unknown_for_every_required_kpi(made: Made) -> None:
    code, answer = ask(made("outage", 21))
    assert code == 3
    missing = {check[:2] for check in not_passed(answer) if check[2] == "UNKNOWN"}
    assert missing == {(kpi.name, symbol) for kpi in KPIS if kpi.required for symbol in SYMBOLS}


@pytest.mark.parametrize(
    ("kpi", "value", "told"),
    [
        ("maker_taker_ratio", 1.5, "maker_taker=1.50, expected from 0 to 1"),
        ("risk_ratio", -0.1, "risk=-0.10, expected from 0"),
        ("p95_latency_ms", -1, "p95_latency=-1, expected from 0"),
    ],
)
def test_a_value_outside_its_domain_is_unknown(
    healthy: Path, kpi: str, value: float, told: str
) -> None:
    assert not KPI_BY_NAME[kpi].is_valid(value)
    set_kpi(healthy, "BTCUSDT", kpi, value)
    code, answer = ask(healthy)
    assert (code, not_passed(answer)) == (3, [(kpi, "BTCUSDT", "UNKNOWN")])
    assert sentence(answer, kpi, "BTCUSDT") == told


@pytest.mark.parametrize(
    ("required", "told"),
    [
        ([], "required_kpis: expected at least one KPI, was none"),
        (["edge_bps", "sharpe"], "required_kpis: 'sharpe' is no KPI known here"),
    ],
)
def test_required_kpis_that_nobody_can_check_are_unknown(
    healthy: Path, required: list[str], told: str
) -> None:
    edit(healthy, lambda summary: summary.update(required_kpis=required))
    code, answer = ask(healthy)
    assert (code, not_passed(answer)) == (3, [("required_kpis", None, "UNKNOWN")])
    assert sentence(answer, "required_kpis") == told


def test_artifacts_without_symbols_are_unknown(healthy: Path) -> None:
    edit(healthy, lambda summary: summary.update(symbols=[]))
    code, answer = ask(healthy)
    assert (code, not_passed(answer)) == (3, [("symbols", None, "UNKNOWN")])


def test_a_symbol_without_values_is_unknown(healthy: Path) -> None:
    edit(healthy, lambda summary: summary["symbols"].append("SOLUSDT"))
    code, answer = ask(healthy)
    assert code == 3
    assert not_passed(answer) == [
        ("throttle", "SOLUSDT", "UNKNOWN"),
        ("kpis", "SOLUSDT", "UNKNOWN"),
    ]


def test_a_symbol_with_values_that_is_not_listed_is_unknown(healthy: Path) -> None:
    edit(healthy, lambda summary: summary.update(symbols=["BTCUSDT"]))
    code, answer = ask(healthy)
    assert (code, not_passed(answer)) == (3, [("symbols", None, "UNKNOWN")])
    assert sentence(answer, "symbols") == "symbols: 'ETHUSDT' has values, but isn't listed"


def test_a_symbol_that_is_no_symbol_is_unknown_and_never_printed_raw(healthy: Path) -> None:
    edit(healthy, lambda summary: summary["symbols"].append("\x1b[2J\ngate: PASS"))
    done = CliRunner().invoke(live, ["gate", "--path", str(healthy)])
    assert done.exit_code == 3
    assert "\x1b" not in done.stdout
    assert "gate: PASS" not in done.stdout.splitlines()


# Files that aren't whole


def test_a_missing_folder_is_one_unknown_check(tmp_path: Path) -> None:
    code, answer = ask(tmp_path / "nowhere")
    assert (code, not_passed(answer)) == (3, [("artifacts", None, "UNKNOWN")])
    assert answer["ledger"] is None


def test_no_check_at_all_is_no_pass() -> None:
    nothing = ArtifactsRead(None, None, None, ())
    assert not nothing.is_whole
    assert judge(nothing, GateLimits(DEFAULTS, max_age_sec=0), now_ms=0).exit_code == 3


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "blank", "folder", "pipe", "too big"])
def test_a_file_that_cannot_be_read_is_unknown(healthy: Path, name: str, damage: str) -> None:
    path = healthy / name
    content = path.read_bytes()
    path.unlink()
    match damage:
        case "empty" | "blank":
            path.write_bytes(b" \n" if damage == "blank" else b"")
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "too big":
            path.write_bytes(content + b" " * (FILE_BYTES_MAX + 1 - len(content)))
    code, answer = ask(healthy)
    assert (code, not_passed(answer)) == (3, [(name, None, "UNKNOWN")])
    assert not any(check["name"] == "version" for check in answer["checks"])


def test_a_file_of_16_mib_is_still_read(healthy: Path) -> None:
    content = (healthy / SUMMARY).read_bytes()
    (healthy / SUMMARY).write_bytes(content.ljust(FILE_BYTES_MAX))
    assert ask(healthy)[0] == 0


@pytest.mark.parametrize("name", [SUMMARY, DECISION])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"1.0", b"NaN"),
        lambda content: content.replace(b"1.0", b"1e999"),
        lambda content: content.replace(b"1.0", b'"1.0"'),
        lambda content: content.replace(b"1.0", b"true"),
        lambda content: content.replace(b"ACTIVE", b"\xff"),
        lambda content: content.replace(b"ACTIVE", b"OPEN"),
        lambda content: content + content,
        lambda content: b"[" + content + b"]",
        lambda content: b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"," + content[1:],
    ],
    ids=["cut", "nan", "huge", "text", "bool", "latin1", "enum", "twice", "list", "deep"],
)
def test_a_file_that_is_not_well_formed_is_unknown(
    healthy: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    path = healthy / name
    path.write_bytes(damage(path.read_bytes()))
    code, answer = ask(healthy)
    assert (code, not_passed(answer)) == (3, [(name, None, "UNKNOWN")])
    assert "is not well-formed" in sentence(answer, name)


@pytest.mark.parametrize("name", [SUMMARY, DECISION])
def test_the_gate_never_passes_without_any_one_key(healthy: Path, name: str) -> None:
    whole = (healthy / name).read_text()
    for key in json.loads(whole):
        edit(healthy, lambda content, key=key: content.pop(key), name)  # type: ignore[misc]
        found = read_artifacts(healthy)
        result = judge(found, GateLimits(DEFAULTS, max_age_sec=0), now_ms=2**42)
        assert result.exit_code == 3, key
        (healthy / name).write_text(whole)
    assert ask(healthy)[0] == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda decision: decision["ledger"].update(version=3), "differ in ledger"),
        (lambda decision: decision["ledger"].update(stream="dev:okx"), "differ in ledger"),
        (lambda decision: decision.update(state="COOLDOWN"), "differ in state"),
        (lambda decision: decision.update(throttle=0.5), "differ in throttle"),
        (lambda decision: decision["per_symbol_throttle"].pop("ETHUSDT"), "differ in per_symbol"),
        (lambda decision: decision["window"].update(verdict="WARN"), "differ in window"),
    ],
)
def test_a_decision_of_another_version_is_unknown(
    healthy: Path, change: Callable[[Json], object], told: str
) -> None:
    edit(healthy, change, DECISION)
    code, answer = ask(healthy)
    assert (code, not_passed(answer)) == (3, [("version", None, "UNKNOWN")])
    assert told in sentence(answer, "version")


def test_a_report_of_another_version_is_unknown(healthy: Path) -> None:
    report = (healthy / REPORT).read_text()
    version = json.loads((healthy / SUMMARY).read_text())["ledger"]["version"]
    assert f"version {version}," in report
    (healthy / REPORT).write_text(report.replace(f"version {version},", f"version {version}0,"))
    code, answer = ask(healthy)
    assert (code, not_passed(answer)) == (3, [("version", None, "UNKNOWN")])
    (healthy / REPORT).write_text("# All is well\n")
    assert ask(healthy)[0] == 3


def test_files_that_are_being_renamed_are_read_again(made: Made, healthy: Path) -> None:
    pauses = []
    shutil.copy(made("warn", 9) / SUMMARY, healthy / SUMMARY)

    def rename_the_others(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            shutil.copytree(made("warn", 9), healthy, dirs_exist_ok=True)

    found = read_settled(healthy, sleep=rename_the_others)
    assert found.is_whole and len(pauses) == 2
    assert found.decision is not None and found.decision.state == "COOLDOWN"


def test_files_that_stay_torn_are_given_up_in_half_a_second(healthy: Path) -> None:
    pauses: list[float] = []
    (healthy / REPORT).unlink()
    assert not read_settled(healthy, sleep=pauses.append).is_whole
    assert len(pauses) == READ_ATTEMPTS - 1
    assert 0 < len(pauses) * PAUSE_SEC <= 0.5


# Time and origin


def shift(folder: Path, seconds: int) -> None:
    """Move `generated_at_utc` by so many seconds."""

    def change(summary: Json) -> None:
        moved = parse_time(summary["generated_at_utc"]) + seconds * 1000
        summary["generated_at_utc"] = format_time(moved)

    edit(folder, change)


def test_stale_artifacts_are_unknown_unless_any_age_will_do(healthy: Path) -> None:
    shift(healthy, -3_601)
    code, answer = ask(healthy)
    assert (code, not_passed(answer)) == (3, [("age", None, "UNKNOWN")])
    assert sentence(answer, "age").endswith("s > 3600 s: stale")
    assert ask(healthy, "--max-age", "86400")[0] == 0
    code, answer = ask(healthy, "--max-age", "0")
    assert code == 0
    assert sentence(answer, "age").endswith("(any age will do)")


@pytest.mark.parametrize(
    ("age_ms", "max_age_sec", "outcome"),
    [
        (3_600_000, 3_600.0, Outcome.PASS),
        (3_600_001, 3_600.0, Outcome.UNKNOWN),
        (-60_000, 3_600.0, Outcome.PASS),
        (-60_001, 3_600.0, Outcome.UNKNOWN),
        (10**12, 0.0, Outcome.PASS),
        (-60_001, 0.0, Outcome.UNKNOWN),
    ],
)
def test_the_age_is_exact_to_the_millisecond(
    made: Made, age_ms: int, max_age_sec: float, outcome: Outcome
) -> None:
    found = read_artifacts(made("healthy", 1))
    assert found.summary is not None
    now_ms = parse_time(found.summary.generated_at_utc) + age_ms
    result = judge(found, GateLimits(DEFAULTS, max_age_sec), now_ms=now_ms)
    assert result.outcome is outcome
    (check,) = [check for check in result.checks if check.name == "age"]
    assert (check.outcome, check.value) == (outcome, age_ms / 1000)


def test_artifacts_from_the_future_are_unknown(healthy: Path) -> None:
    shift(healthy, 86_400)
    for options in ([], ["--max-age", "0"]):
        code, answer = ask(healthy, *options)
        assert (code, not_passed(answer)) == (3, [("age", None, "UNKNOWN")])
        assert "in the future" in sentence(answer, "age")


def test_a_time_that_is_none_is_unknown(healthy: Path) -> None:
    edit(healthy, lambda summary: summary.update(generated_at_utc="yesterday"))
    code, answer = ask(healthy, "--max-age", "0")
    assert (code, not_passed(answer)) == (3, [("age", None, "UNKNOWN")])


def test_without_env_artifacts_of_any_env_will_do(healthy: Path) -> None:
    edit(healthy, lambda summary: summary.update(env="staging"))
    code, answer = ask(healthy)
    assert code == 0
    assert not {"env", "feed"} & {check["name"] for check in answer["checks"]}


def test_artifacts_of_another_env_are_unknown(healthy: Path) -> None:
    assert ask(healthy, "--env", "dev")[0] == 0
    code, answer = ask(healthy, "--env", "staging")
    assert (code, not_passed(answer)) == (3, [("env", None, "UNKNOWN")])
    assert sentence(answer, "env") == "env='dev', expected 'staging'"


def test_prod_refuses_made_up_kpis(healthy: Path) -> None:
    edit(healthy, lambda summary: summary.update(env="prod"))
    assert ask(healthy)[0] == 0
    code, answer = ask(healthy, "--env", "prod")
    assert (code, not_passed(answer)) == (3, [("feed", None, "UNKNOWN")])
    edit(healthy, lambda summary: summary.update(feed="redis://prod-redis:6379/0"))
    assert ask(healthy, "--env", "prod")[0] == 0


# The command itself


def test_the_help_lists_the_exit_codes_and_an_option_for_every_kpi() -> None:
    text = " ".join(CliRunner().invoke(live, ["gate", "--help"]).stdout.split())
    assert "Exit codes: 0 PASS, 1 FAIL, 2 bad usage, 3 can't tell" in text
    by_name = {param.name: param for param in gate.params if isinstance(param, click.Option)}
    for kpi in KPIS:
        option = by_name[kpi.gate_option]
        assert f"--{kpi.gate_option}" in option.opts
        assert option.default == kpi.threshold
