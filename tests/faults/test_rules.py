"""The alert rules: unit-tested one by one, about metrics that exist, each with its runbook line."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from guard import metrics
from tests.faults.matrix import DOCUMENT, all_faults
from tests.faults.prometheus import RULES, present

TESTS = RULES.with_name("guard.rules.test.yml")
OTHERS = {"up", "process_start_time_seconds", "process_open_fds", "process_max_fds"}
# What no fault here provokes: bugs, and what comes before a fault that is played.
UNPROVOKED = {
    "GuardInternalErrors",
    "GuardDescriptorsShort",
    "GuardQueryAttack",  # an attack, no fault: tests/gateway/test_sequences.py
    "GuardStrangeCaller",  # a caller, no fault: tests/gateway/test_shifting.py
    "GuardDrift",  # other traffic, no fault: tests/gateway/test_shifting.py
    "GuardPacksDiffer",  # promoted here and not there, no fault: the rule's unit test
    "GuardSuspectsQuota",  # retention works: tests/gateway/test_keeping.py
    "GuardSuspectsRotationLate",  # takes a minute: the rule's unit test
}


def rules() -> dict[str, dict[str, Any]]:
    """The alerts by name."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def checks() -> list[dict[str, Any]]:
    """What the unit tests expect of alerts, one by one."""
    return [
        check
        for test in yaml.safe_load(TESTS.read_text())["tests"]
        for check in test["alert_rule_test"]
    ]


def promtool(*arguments: str, folder: Path = RULES.parent) -> subprocess.CompletedProcess[str]:
    """Run it beside the rules."""
    if not present():
        pytest.skip("no promtool: deploy/ci/install services")
    return subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True)


def test_the_unit_tests_of_the_rules_pass() -> None:
    """promtool agrees with every expectation, and finds no fault in the rules."""
    for arguments in (("check", "rules", RULES.name), ("test", "rules", TESTS.name)):
        done = promtool(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("expression", ["vector(0) > 1", "vector(1)"], ids=["never", "always"])
def test_a_rule_that_is_never_or_always_true_is_noticed(expression: str, tmp_path: Path) -> None:
    """The unit tests complain of each alert whose expression tests nothing any more."""
    book = yaml.safe_load(RULES.read_text())
    for rule in book["groups"][0]["rules"]:
        rule["expr"] = expression
    (tmp_path / RULES.name).write_text(yaml.safe_dump(book))
    (tmp_path / TESTS.name).write_text(TESTS.read_text())
    done = promtool("test", "rules", TESTS.name, folder=tmp_path)
    complained = set(re.findall(r"alertname: ?(Guard\w+)", done.stdout + done.stderr))
    assert (done.returncode, complained) == (1, set(rules()))


def test_every_alert_is_seen_to_fire_and_to_stay_silent() -> None:
    """Silent before and after its fault, firing in between, for an alert of every name."""
    seen: dict[str, list[bool]] = {}
    for check in checks():
        seen.setdefault(check["alertname"], []).append(bool(check["exp_alerts"]))
    assert seen == {name: [False, True, False] for name in rules()}


def test_every_alert_reads_metrics_that_exist() -> None:
    """No rule is about a name that the gateway does not export."""
    families = {family.name for family in metrics.REGISTRY.collect()}
    families |= {f"{name}_total" for name in families} | OTHERS
    for name, rule in rules().items():
        expression = re.sub(r'"[^"]*"|by \([^)]*\)|\{[^}]*\}', "", rule["expr"])
        read = set(re.findall(r"\b(?:guard|process)_\w+|\bup\b", expression))
        assert read and read <= families, name


def test_every_alert_tells_of_the_gateway_and_has_a_runbook_line() -> None:
    """Whoever is woken up knows which gateway, how urgent it is, and where to read on."""
    runbook = DOCUMENT.read_text().split("## Alerts")[1]
    for name, rule in rules().items():
        assert "{{ $labels.instance }}" in rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert f"| `{name}` |" in runbook
    assert set(re.findall(r"\| `(Guard\w+)` \|", runbook)) == set(rules())


def test_every_alert_is_provoked_by_a_fault() -> None:
    """The matrix and the rules know the same alerts, but for the two that say why not."""
    assert {one.alert for one in all_faults()} == set(rules()) - UNPROVOKED
