"""The state of a source whose own program is missing, or says nothing, is not known; it is never taken for clean."""

from pathlib import Path

import pytest

from litho.errors import RefusedError
from litho_agent import condition
from litho_agent.condition import CLEAN, decide, inspect, judge_ntfs, parse_logprint

INFO = "Volume Version: 3.1\nVolume Flags: 0x0000\n"


@pytest.mark.parametrize(
    ("fs", "installed", "says"),
    [
        ("xfs", (), "xfs_logprint is not installed here"),
        ("ntfs", (), "ntfs-3g.probe and ntfsinfo are not installed here"),
        ("ntfs", ("ntfs-3g.probe",), "ntfsinfo is not installed here"),
    ],
)
def test_a_source_whose_program_is_missing_is_refused_with_the_program_and_the_way_out(
    monkeypatch, fs, installed, says
):
    monkeypatch.setattr(condition.process, "which", lambda name: f"/bin/{name}" if name in installed else None)
    found = inspect(Path("/dev/never/opened"), fs)
    assert found.state == "unknown" and says in found.reason
    for wish in ("refuse", "repair"):
        with pytest.raises(RefusedError, match="nobody can say whether it is clean") as caught:
            decide("/dev/sda1", found, wish)
        assert caught.value.code == "source-unknown"
        assert "install " + {"xfs": "xfsprogs", "ntfs": "ntfs-3g"}[fs] in caught.value.hint
    assert decide("/dev/sda1", found, "raw") == "raw"


def test_a_program_that_does_not_say_is_no_proof():
    assert parse_logprint("log file: ... state: <CLEAN>") == CLEAN
    assert parse_logprint("xfs_logprint: cannot read superblock").state == "unknown"
    assert judge_ntfs(0, INFO) == CLEAN
    assert judge_ntfs(13, INFO).state == "unknown"
    assert judge_ntfs(0, "").state == "unknown"
