"""Tables of the command line, for people and for pipes."""

from __future__ import annotations

import pytest

from asktell import client as at
from asktell.cli import tables
from tests.unit.client_fake import serving

NAME = "a-study-with-a-name-that-is-longer-than-what-a-column-of-a-terminal-has-room-for-in-a-table"


@pytest.fixture
def record():
    with serving() as service, at.Client(service.target) as client:
        names = [f"model.encoder.block_{place}.learning_rate" for place in range(9)]
        yield client.create_study(
            NAME, parameters=[at.Float(name, 0, 1) for name in names], objectives=[at.Minimize("loss")]
        ).record


def test_what_is_no_terminal_has_a_line_for_each_row_however_long(record, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    tables.show(tables.studies([record, record]))
    lines = capsys.readouterr().out.splitlines()
    assert sum(NAME in line for line in lines) == 2
    assert len(lines) == 4
    tables.show(tables.heading(record), tables.space(record.parameters))
    shown = capsys.readouterr().out
    assert all(parameter.name in shown for parameter in record.parameters)
    assert f"projects/default/studies/{NAME}" in shown


def test_who_says_how_wide_it_is_gets_what_fits(record, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    tables.show(tables.studies([record]))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert len(lines) > 3
