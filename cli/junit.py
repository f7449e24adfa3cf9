"""
Outcomes as JUnit XML, which CI servers read.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Literal
from xml.etree import ElementTree as ET

import msgspec

from cli.tables import check_replaceable
from domain.errors import BadInput

Kind = Literal["failure", "error"]

_ILLEGAL: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 can't hold, escaped or not."""


class Case(msgspec.Struct, frozen=True):
    """
    One case of a suite.

    Attributes:
        name: what was looked at.
        problem: `failure` if it failed, `error` if it can't be told; None if it passed.
        told: what to say of it, the first line in short.
    """

    name: str
    problem: Kind | None = None
    told: str = ""


def write_junit(path: Path, suites: Mapping[str, Iterable[Case]], *, option: str) -> None:
    """
    Write suites of cases, by name.

    Raises:
        BadInput: if it can't be written, or would replace a ledger, naming the option.
    """
    check_replaceable(path, option=f"{option}: ")
    try:
        path.write_bytes(junit_xml(suites))
    except OSError as error:
        raise BadInput(f"{option}: {path} can't be written: {error.strerror}") from None


def junit_xml(suites: Mapping[str, Iterable[Case]]) -> bytes:
    """Return suites of cases, by name, as a JUnit document."""
    root = ET.Element("testsuites")
    for name, cases in suites.items():
        suite = ET.SubElement(root, "testsuite", name=_legal(name))
        counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
        for case in cases:
            counts["tests"] += 1
            element = ET.SubElement(
                suite, "testcase", classname=_legal(name), name=_legal(case.name)
            )
            if case.problem is not None:
                counts[f"{case.problem}s"] += 1
                message = case.told.partition("\n")[0]
                problem = ET.SubElement(element, case.problem, message=_legal(message))
                problem.text = _legal(case.told)
        suite.attrib.update({key: str(count) for key, count in counts.items()})
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _legal(text: str) -> str:
    return _ILLEGAL.sub("?", text)
