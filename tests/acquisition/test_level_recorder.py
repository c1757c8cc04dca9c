"""What is drawn while levels are recorded."""

from quietscope.acquisition.level_recorder import RecordedLevel, photon_transfer_sparkline


def test_sparkline_rises_with_the_variance():
    levels = [RecordedLevel(None, 100.0 * i, 50.0 * i, 0.0) for i in range(1, 9)]
    line = photon_transfer_sparkline(levels)
    bars = [mark for mark in line if mark in "▁▂▃▄▅▆▇█"]
    assert bars == sorted(bars)
    assert len(set(bars)) > 4
    assert "0.5 ADU/e⁻" in line
