"""Parsing mutmut's output, and the list of equivalent mutants."""

import inspect
import pkgutil

import pytest

from mutation.report import LISTED, Change, Mutant, compare, read_change, read_list, read_results, table

RESULTS = """\
    devbox_secrets.api.names.x_path__mutmut_1: survived
    devbox_secrets.api.names.x_path__mutmut_2: killed
    devbox_secrets.controller.rules.plan.xǁEntryǁ__init____mutmut_10: timeout
    devbox_secrets.controller.rules.plan.x__fill__mutmut_3: no tests
"""
SHOWN = """\
# devbox_secrets.api.names.x_path__mutmut_1: survived
--- src/devbox_secrets/api/names.py
+++ src/devbox_secrets/api/names.py
@@ -1,3 +1,3 @@
 def path(name: str) -> str:
-    return (
-        name)
+    return None
"""
LIST = """\
[["devbox_secrets.api.names:path"]]
before = "return ( name)"
after = ["return None"]
reason = "why"
"""
CHANGE = Change("devbox_secrets.api.names:path", "return ( name)", "return None")


def test_the_results_name_the_function_of_each_mutant_and_whether_it_survived() -> None:
    mutants = read_results(RESULTS)
    assert [(mutant.function, mutant.package, mutant.survives) for mutant in mutants] == [
        ("devbox_secrets.api.names:path", "api", True),
        ("devbox_secrets.api.names:path", "api", False),
        ("devbox_secrets.controller.rules.plan:Entry.__init__", "controller.rules", False),
        ("devbox_secrets.controller.rules.plan:_fill", "controller.rules", True),
    ]


def test_a_change_is_identified_by_its_text() -> None:
    assert read_change(Mutant("devbox_secrets.api.names.x_path__mutmut_1", "survived"), SHOWN) == CHANGE
    assert read_list(LIST) == {CHANGE: "why"}


def test_a_survivor_must_be_listed() -> None:
    assert compare([CHANGE], read_list(LIST), is_complete=True) == []
    assert compare([CHANGE], {}, is_complete=True) == [
        "not detected and not listed: devbox_secrets.api.names:path\n  - return ( name)\n  + return None"
    ]


def test_a_listed_mutant_must_survive_if_all_mutants_were_run() -> None:
    (problem,) = compare([], read_list(LIST), is_complete=True)
    assert problem.startswith("listed, but detected: devbox_secrets.api.names:path")
    assert compare([], read_list(LIST), is_complete=False) == []


def test_the_table_has_a_row_for_each_package_and_the_total() -> None:
    assert table(read_results(RESULTS), {"api": 1}).splitlines() == [
        "PACKAGE               MUTANTS  KILLED  PERCENT  LISTED  NEW",
        "api                         2       1     50.0       1    0",
        "controller.rules            2       1     50.0       0    1",
        "all                         4       2     50.0       1    1",
    ]


@pytest.mark.parametrize(("change", "reason"), read_list(LISTED.read_text()).items(), ids=str)
def test_a_listed_change_matches_the_source_and_has_a_reason(change: Change, reason: str) -> None:
    source = " ".join(inspect.getsource(pkgutil.resolve_name(change.function)).split())
    assert " ".join(change.before.split()) in source
    assert reason
