"""Progress on stderr: lines stay, bars go, and an error inside a task leaves the next one a clean display."""

import pytest

from tesserec.cli.output import TerminalProgress


def test_on_a_terminal_tasks_nest_and_lines_stay(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # for rich: this is a terminal
    progress = TerminalProgress()
    with progress.task("outer", 2) as outer:
        outer.advance(note="half")
        progress.say("a line that stays")
        with progress.task("inner") as inner:
            inner.advance(3)
    with pytest.raises(ValueError, match="broken"), progress.task("broken"):
        raise ValueError("broken")
    with progress.task("afterwards", 1) as task:
        task.advance()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "a line that stays" in shown.err
    assert "outer" in shown.err


def test_in_a_log_file_long_work_speaks_up_and_short_work_does_not(monkeypatch, capsys):
    progress = TerminalProgress()
    with progress.task("short", 2) as task:
        task.advance()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("tesserec.cli.output.LOG_SECONDS", 0)
    with progress.task("long", 2000) as task:
        task.advance(1000, note="loss 2.5")
    assert capsys.readouterr().err == "long: 1,000 of 2,000, loss 2.5\n"
