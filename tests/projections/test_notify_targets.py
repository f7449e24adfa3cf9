"""URLs are secrets as a whole: what is shown of them, what is refused, and that nothing leaks."""

import logging
from pathlib import Path

import pytest
from webhook import running_webhook

from domain.errors import BadInput
from projections.notify_messages import Severity
from projections.notify_targets import (
    CONNECT_SEC_MAX,
    READ_SEC_MAX,
    open_targets,
    read_notify_file,
    split_urls,
    target_name,
)

CANARY = "canary-Zq7-secret"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"json://ann:{CANARY}@127.0.0.1:8080/{CANARY}?+X-Token={CANARY}", "json://127.0.0.1:8080"),
        (f"slack://{CANARY}/B1234/C1234567890/#ops", "slack"),
        (f"tgram://123456789:{CANARY}/12315544/", "tgram"),
        (
            f"https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/{CANARY}",
            "https://hooks.slack.com",
        ),
        (f"mailtos://ann:{CANARY}@mail.example?to=b@c.example", "mailtos://mail.example"),
        (f"json://[{CANARY}/x", "json"),
    ],
)
def test_a_targets_name_is_its_scheme_its_host_where_it_is_one_and_a_hash(
    url: str, shown: str
) -> None:
    name, separator, digest = target_name(url).partition("#")
    assert (name, separator, len(digest)) == (shown, "#", 8)
    assert CANARY not in target_name(url)
    assert target_name(url) == target_name(url) != target_name(url + "x")


def test_urls_are_separated_by_blanks_lines_and_commas_but_not_within_themselves() -> None:
    text = (
        "slack://a/b/c, mailto://u:p@h.example?to=a@x.example,b@y.example\njson://h/1  json://h/1"
    )
    assert split_urls([text, "json://h/2"]) == [
        "slack://a/b/c",
        "mailto://u:p@h.example?to=a@x.example,b@y.example",
        "json://h/1",
        "json://h/2",
    ]


@pytest.mark.parametrize(
    "url",
    [
        CANARY,
        f"nosuch://{CANARY}",
        f"slack://{CANARY}",
        "json://",
        f"json://{CANARY}:notaport/",
        f"json://h/{'x' * 5000}",
    ],
)
def test_a_url_that_is_none_is_refused_without_telling_it(
    url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadInput, match=r"--notify: URL 2 of 2: ") as refused:
        open_targets(["json://127.0.0.1/ok", url])
    assert CANARY not in str(refused.value)
    assert refused.value.__cause__ is None
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_switching_certificate_checks_off_is_refused_in_prod() -> None:
    url = f"jsons://h.example/{CANARY}?verify=no"
    assert open_targets([url], env="dev")
    with pytest.raises(BadInput, match="certificate checks") as refused:
        open_targets([url], env="prod")
    assert CANARY not in str(refused.value)


def test_a_service_gets_bounded_time_and_less_where_the_url_says_so() -> None:
    (mail, quick) = open_targets(["mailtos://u:p@h.example", "json://h/?rto=0.5&cto=0.25"])
    assert mail._service.socket_connect_timeout == CONNECT_SEC_MAX
    assert mail._service.socket_read_timeout <= READ_SEC_MAX
    assert quick._service.socket_read_timeout == 0.5
    assert quick._service.socket_connect_timeout == 0.25


@pytest.mark.parametrize("mode", ["ok", "fail"])
def test_what_the_library_logs_about_sending_goes_nowhere(
    mode: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with running_webhook() as webhook, caplog.at_level(logging.DEBUG):
        webhook.mode = mode
        (target,) = open_targets([webhook.url(CANARY, f"?+X-Token={CANARY}")])
        assert target.send("title", "body", Severity.WARN) is (mode == "ok")
    assert CANARY not in repr(target)
    assert CANARY not in caplog.text
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_a_service_that_is_not_there_is_not_delivered() -> None:
    with running_webhook() as webhook:
        url = webhook.url()
    (target,) = open_targets([url])
    assert not target.send("title", "body", Severity.CRIT)


def test_a_file_has_a_url_a_line_and_a_warning_if_others_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    path.write_text("# the desk\njson://127.0.0.1/a\n\njson://127.0.0.1/b\n")
    path.chmod(0o600)
    assert read_notify_file(path) == (["json://127.0.0.1/a", "json://127.0.0.1/b"], None)
    path.chmod(0o644)
    assert read_notify_file(path)[1] == (
        f"--notify-file: {path} can be read by others; make it yours: chmod 600 {path}"
    )


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"\xff\xfe", b"json://h\n" * 10_000])
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notify"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="--notify-file: "):
        read_notify_file(path)
    with pytest.raises(BadInput, match="can't be read"):
        read_notify_file(tmp_path / "nowhere")
