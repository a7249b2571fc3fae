"""The recovery rows' own machinery, on a log that is opened in a second."""

from __future__ import annotations

from pathlib import Path

from benchmarks.model import Setting
from benchmarks.recovery import History, copy_of_killed, filled


def test_a_killed_owners_log_is_opened_again_as_often_as_it_is_measured(tmp_path: Path) -> None:
    setting = Setting(1, tmp_path, tmp_path)
    history = History(before=2_000, after=3_000, entry=100, vchannels=3)
    with filled(setting, "row", history, None) as log:
        first, second = (log.measure(setting, "row") for _ in range(2))
    for figures in (first, second):
        assert 30 <= figures["entries"] < 50, "the tail, and not the history"
        assert 0 < figures["replay_s"] <= figures["open_s"] < figures["ready_s"]
        assert figures["database_s"] > 0
        assert figures["messages"] == 3_000
    assert [path.name for path in tmp_path.iterdir()] == ["row-walplane.log"]


def test_a_copy_shares_only_what_is_written_once(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "log").mkdir(parents=True)
    for name in ("1.sst", "2.blob", "3.log", "CURRENT"):
        (source / "log" / name).write_text(name)
    copy_of_killed(source, tmp_path / "copy")
    made = {path.name: path for path in (tmp_path / "copy" / "log").iterdir()}
    assert {name: path.read_text() for name, path in made.items()} == {n: n for n in made}
    shared = {name for name, path in made.items() if path.samefile(source / "log" / name)}
    assert shared == {"1.sst", "2.blob"}
    assert len(made) == 4
