from tools.hardware_doc import DOCUMENT, with_tables


def test_the_tables_of_the_hardware_page_are_those_of_the_code():
    text = DOCUMENT.read_text()
    assert with_tables(text) == text, "python tools/hardware_doc.py writes them anew"
