"""Tables in the documents are those of the code, and of the tests."""

import pytest

from tests.integrations.features import on_langchain
from tests.models import FAMILIES
from tests.pooling_models import POOLING_FAMILIES
from tests.vision_models import VISION_FAMILIES
from tools.adapters_doc import DOCUMENT as ADAPTERS
from tools.hardware_doc import DOCUMENT, with_tables
from tools.marked_table import rows_of
from tools.models_doc import DEVICES
from tools.models_doc import DOCUMENT as MODELS

CHIPS = {"CPU": "cpu", "simulated 910B3": "910B3", "simulated 310P3": "310P3"}


def test_the_tables_of_the_hardware_page_are_those_of_the_code():
    text = DOCUMENT.read_text()
    assert with_tables(text) == text, "python tools/hardware_doc.py writes them anew"


@pytest.mark.parametrize(
    ("table", "families"), [("generating", FAMILIES), ("vision", VISION_FAMILIES), ("pooling", POOLING_FAMILIES)]
)
def test_the_models_page_has_every_family_and_says_which_chips_refuse_it(table, families):
    rows = rows_of(MODELS.read_text(), table)
    assert list(rows) == list(families), "make models writes them anew"
    for name, cells in rows.items():
        refused = [device for device, cell in zip(DEVICES, cells, strict=True) if cell.startswith("refused")]
        assert refused == [device for device in DEVICES if CHIPS[device] in families[name].refused], name


def test_the_adapters_page_has_every_feature_and_ours_have_them_all():
    rows = rows_of(ADAPTERS.read_text(), "features")
    assert list(rows) == list(on_langchain.FEATURES), "make adapters writes them anew"
    for feature, (*ours, _, _, _) in rows.items():
        assert set(ours) <= {"yes", ""}, feature
