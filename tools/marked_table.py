"""Tables of documents that commands write, each between two marks: <!-- name --> and <!-- end of name -->."""


def with_table(text: str, name: str, table: str) -> str:
    """`text` with the table `name` replaced by `table`."""
    before, _, rest = text.partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- end of {name} -->")
    return f"{before}<!-- {name} -->\n{table}{end}{after}"


def rows_of(text: str, name: str) -> dict[str, list[str]]:
    """A table of a document: the first cell of each row -> its other cells."""
    table = text.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- end of {name} -->")[0]
    lines = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines[2:]}
