"""lib.page.sections.data_section: what the page calls a group."""

import pytest

from workflow_scripts.lib.page.sections import data_section


@pytest.mark.parametrize(
    ("columns", "unit"),
    [
        (["gene", "antibody"], "protein"),
        (["group", "Antibody"], "protein"),
        (["well"], "well"),
        (["Wells"], "well"),
        (["cell_line"], "cell line"),
        (["group"], "group"),
        (["patient", "plate"], "group"),
        (["<b>x</b>"], "group"),
        ([], "group"),
    ],
)
def test_a_group_is_called_what_it_is(columns: list[str], unit: str) -> None:
    assert data_section.unit_of(columns) == unit
