"""The comparison's table in its three forms, and its picture."""

import csv
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree as ET

from rich.console import Console

from serving.app.comparison.quantities import SAME, Figure, Quantity, Row
from serving.cli.comparison_files import panels, write_comparison
from serving.cli.comparison_tables import csv_table, markdown_table, terminal_tables

MIB = 2**20
ROWS = [
    Row(
        "fp32",
        "fp32",
        "torch",
        {
            "accuracy": Quantity(Figure(0.75, 0.73, 0.77), SAME),
            "difference_points": Quantity(Figure(0.0)),
            "probability_change": Quantity(Figure(0.0)),
            "agreement": Quantity(Figure(1.0)),
            "time_s": Quantity(Figure(8.0), SAME),
            "private_bytes": Quantity(Figure(300 * MIB), SAME),
            "disk_bytes": Quantity(Figure(1234.5 * MIB), SAME),
        },
    ),
    Row(
        "lean",
        "int8-static",
        "openvino",
        {
            "accuracy": Quantity(Figure(0.744, 0.72, 0.76), Figure(0.992, 0.985, 0.999)),
            "difference_points": Quantity(Figure(-0.6, -1.1, -0.05)),
            "probability_change": Quantity(Figure(0.0123, 0.01, 0.02)),
            "agreement": Quantity(Figure(0.97, 0.96, 0.98)),
            "time_s": Quantity(Figure(2.0), Figure(0.25, 0.2, 0.3)),
            "private_bytes": Quantity(Figure(150 * MIB), Figure(0.5)),
            "disk_bytes": Quantity(Figure(370.35 * MIB), Figure(0.3)),
        },
    ),
]


def test_markdown_has_a_row_per_variant_and_a_ratio_behind_each_figure() -> None:
    head, line, reference, lean = markdown_table(ROWS).splitlines()
    assert head == (
        "| variant | recipe | runtime | accuracy | points to reference | probability change "
        "| agreement | time, s | private, MiB | on disk, MiB |"
    )
    assert line == "| :-- | :-- | :-- | --: | --: | --: | --: | --: | --: | --: |"
    assert reference == (
        "| `fp32` | `fp32` | `torch` | 0.7500 | 0.00 | 0.0000 | 1.0000 | 8.00 | 300.0 | 1,234.5 |"
    )
    assert lean == (
        "| `lean` | `int8-static` | `openvino` | 0.7440 0.992× (0.985 … 0.999) "
        "| -0.60 (-1.10 … -0.05) | 0.0123 (0.0100 … 0.0200) | 0.9700 (0.9600 … 0.9800) "
        "| 2.00 0.25× (0.20 … 0.30) | 150.0 0.50× | 370.4 0.30× |"
    )


def test_csv_has_base_units_and_no_column_without_a_number() -> None:
    reference, lean = csv.DictReader(StringIO(csv_table(ROWS)))
    assert lean["recipe"] == "int8-static"
    assert float(lean["accuracy_low"]) == 0.72
    assert float(lean["accuracy_ratio_high"]) == 0.999
    assert float(lean["disk_bytes"]) == 370.35 * MIB
    assert float(lean["disk_bytes_ratio"]) == 0.3
    assert reference["time_s_ratio"] == "1.0"
    assert reference["time_s_ratio_low"] == ""
    assert not {"disk_bytes_low", "time_s_low", "agreement_ratio"} & lean.keys()


def test_the_terminal_shows_three_variants_beside_the_reference() -> None:
    rows = [ROWS[0], *(Row(f"v{n}", "r", "torch", ROWS[1].quantities) for n in range(4))]
    first, second = terminal_tables("sentiment", rows)
    assert [column.header for column in first.columns] == ["", "fp32", "v0", "v1", "v2"]
    assert [column.header for column in second.columns] == ["", "fp32", "v3"]
    console = Console(width=80, record=True, file=StringIO())
    console.print(first)
    text = console.export_text()
    assert text.split()[0] == "sentiment"
    assert "…" not in "".join(line for line in text.splitlines() if "disk" in line)
    assert text.count("0.25×") == 3
    alone = list(terminal_tables("sentiment", rows[:1]))
    assert [column.header for column in alone[0].columns] == ["", "fp32"]


def test_what_has_a_ratio_or_is_one_itself_is_drawn(tmp_path: Path) -> None:
    drawn = {panel.title: [one.value for one in panel.ratios] for panel in panels(ROWS)}
    assert drawn == {
        "accuracy": [1, 0.992],
        "agreement": [1, 0.97],
        "time": [1, 0.25],
        "on disk": [1, 0.3],
    }
    paths = write_comparison("sentiment, 3 inputs", "Some CPU.", ROWS, tmp_path / "new")
    assert [path.name for path in paths] == ["comparison.md", "comparison.csv", "comparison.svg"]
    text = paths[0].read_text("utf-8")
    assert text.startswith("# sentiment, 3 inputs\n\n| variant |")
    assert "\n\nSome CPU.\n\n![" in text
    texts = [element.text for element in ET.parse(paths[2]).iter() if element.tag.endswith("text")]
    assert {"fp32", "lean", "time", "on disk"} <= set(texts)
