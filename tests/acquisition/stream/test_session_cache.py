"""Sessions for every frame shape do not pile up."""

from __future__ import annotations

import numpy as np

from quietscope.acquisition import LiveDenoiser
from quietscope.acquisition.stream.channel_denoisers import LEAST_SESSIONS, ChannelDenoisers
from quietscope.acquisition.stream.session_cache import Session, SessionCache
from quietscope.storage.open_stack import open_stack


class Doubling:
    context_frames = 0
    open_ones = 0

    def __init__(self, frame_shape):
        self.frame_shape = frame_shape
        Doubling.open_ones += 1

    def denoise(self, observations, out):
        out[:] = 2.0 * observations[0]

    def close(self):
        Doubling.open_ones -= 1


def test_the_least_recently_used_one_goes():
    cache, built = SessionCache(3), []

    def get(width):
        def build():
            built.append(width)
            return Session(Doubling((1, width)), own=True)

        return cache.get(("model", (1, width), None), build)

    for width in (1, 2, 3, 1, 4, 1, 2):
        assert get(width).denoiser.frame_shape == (1, width)
    assert built == [1, 2, 3, 4, 2]  # 2 had to go for 4, and then came back
    assert len(cache) == 3 == Doubling.open_ones
    cache.close()
    assert Doubling.open_ones == 0


def test_a_denoiser_that_was_handed_in_is_not_closed():
    cache, given = SessionCache(2), Doubling((4, 4))
    cache.get(("given", (4, 4), None), lambda: Session(given, own=False)).pipeline()
    cache.close()
    assert Doubling.open_ones == 1
    given.close()


def test_a_run_of_many_sizes_keeps_few_sessions_and_loses_no_frame(tmp_path):
    sizes = [(8, 8 + n) for n in range(3 * LEAST_SESSIONS)]
    most = 0
    with LiveDenoiser(Doubling, tmp_path / "run") as live:
        for shape in sizes:
            for t in range(2):
                live.image_process_fn(np.full(shape, 7 + t, "uint16"), {"Axes": {"time": t}})
            most = max(most, Doubling.open_ones)
    assert most <= LEAST_SESSIONS + 1  # one more while it is being built
    assert Doubling.open_ones == 0
    assert live.report["frames_denoised"] == 2 * len(sizes)
    for part in (1, len(sizes)):
        name = "denoised.ome.zarr" if part == 1 else f"denoised-{part}.ome.zarr"
        assert [f[0, 0] for f in open_stack(tmp_path / "run" / name)] == [14, 16]


def test_bundles_are_closed_too(make_bundle):
    denoisers = ChannelDenoisers(make_bundle(), provider="cpu")
    for width in range(8, 8 + 2 * LEAST_SESSIONS):
        denoisers.denoiser(None, (8, width))
    assert len(denoisers._sessions) == LEAST_SESSIONS
    assert denoisers.result()["provider"] == "CPUExecutionProvider"
    denoisers.close()
