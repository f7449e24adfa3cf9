"""
Outcomes of scenarios as JUnit XML, which CI servers read.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final
from xml.etree import ElementTree as ET

from replay.scenario import Outcome

_ILLEGAL: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 can't hold, escaped or not."""


def junit_xml(outcomes: Mapping[str, Sequence[Outcome]]) -> bytes:
    """Return the outcomes, by file, as a JUnit document: a suite a file, a case a scenario."""
    suites = ET.Element("testsuites")
    for file, found in outcomes.items():
        failed = sum(bool(outcome.failures) for outcome in found)
        suite = ET.SubElement(
            suites,
            "testsuite",
            name=_legal(file),
            tests=str(len(found)),
            failures=str(failed),
            errors="0",
            skipped="0",
        )
        for outcome in found:
            case = ET.SubElement(
                suite, "testcase", classname=_legal(file), name=_legal(outcome.scenario.name)
            )
            if outcome.failures:
                told = [f"{failure.place}: {failure.text}" for failure in outcome.failures]
                failure = ET.SubElement(case, "failure", message=_legal(told[0]))
                failure.text = _legal("\n".join(told))
    ET.indent(suites)
    document: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _legal(text: str) -> str:
    return _ILLEGAL.sub("?", text)
