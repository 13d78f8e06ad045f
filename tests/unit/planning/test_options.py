"""What is made from the table of options is current."""

from __future__ import annotations

from support.paths import ROOT

from builders.photos import calibration
from builders.planning.options import OPTIONS, makefile, table


def test_the_makefiles_options_are_current() -> None:
    assert (ROOT / "options.mk").read_text().splitlines() == list(makefile())


def test_the_table_of_the_readme_is_current() -> None:
    assert "\n".join(table()) + "\n\n" in (ROOT / "README.md").read_text()


def test_the_stated_number_of_calibration_photos_is_the_least() -> None:
    (option,) = (option for option in OPTIONS if option.variable == "CALIBRATION")
    assert f"at least {calibration.LEAST} photos" in option.values


def test_a_plan_takes_all_that_a_run_takes() -> None:
    for option in OPTIONS:
        assert "zoo" not in option.takes or {"plan", "nightly"} <= {*option.takes}
