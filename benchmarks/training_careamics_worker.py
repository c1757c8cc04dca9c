"""CAREamics' N2V in a process and an environment of its own, for `training_careamics.py`.

Owns the timing of its steps and its PSNR at intervals, outside of the clock. Imports nothing of
quietscope, so that CAREamics may bring the versions it wants.

    python training_careamics_worker.py '{"data": "nandb.npz", "channels": 32, …}'

Prints one line of JSON at the end.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import statistics
import sys
import tempfile
import time
import warnings
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.flop_counter import FlopCounterMode

CAREAMIST: Any = importlib.import_module("careamics.careamist")
FACTORY: Any = importlib.import_module("careamics.config.factories.n2v_factory")
WINDOW = 20
WARM_UP_WINDOWS = 1


class Watch(Callback):
    """Seconds of training alone, and the PSNR now and then while the watch stands still."""

    def __init__(self, task: dict[str, Any], data: Any) -> None:
        self.noisy, self.truth = data["noisy"], data["truth"]
        self.mean, self.deviation = float(data["training"].mean()), float(data["training"].std())
        self.most_seconds = task.get("most_seconds", float("inf"))
        self.every_seconds = task.get("every_seconds", float("inf"))
        self.target_db = task.get("target_db", float("inf"))
        self.started = time.perf_counter()
        self.outside = 0.0
        self.next_score = self.every_seconds
        self.steps = 0
        self.windows: list[float] = []
        self.last = 0.0
        self.scores: list[dict[str, float]] = []

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started - self.outside

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        self.steps += 1
        if self.steps % WINDOW == 0:
            self.windows.append(self.seconds - self.last)
            self.last = self.seconds
        over = self.seconds >= self.most_seconds
        if over or self.seconds >= self.next_score:
            self.next_score = self.seconds + self.every_seconds
            self.score(module)
            over = over or self.scores[-1]["psnr_db"] >= self.target_db
        if over:
            trainer.should_stop = True
            trainer.limit_val_batches = 0

    def score(self, module: Any) -> None:
        seconds, began = self.seconds, time.perf_counter()
        module.eval()
        values = []
        with torch.no_grad():
            for frame, truth in zip(self.noisy, self.truth, strict=True):
                scaled = torch.from_numpy((frame - self.mean) / self.deviation).float()
                estimate = module.model(scaled[None, None])[0, 0].double().numpy()
                error = ((estimate * self.deviation + self.mean - truth) ** 2).mean()
                values.append(10 * np.log10(np.ptp(truth) ** 2 / error))
        module.train()
        row = {"seconds": seconds, "step": self.steps, "psnr_db": float(np.mean(values))}
        self.scores.append(row)
        print(json.dumps({"CAREamics": row}), file=sys.stderr, flush=True)
        self.outside += time.perf_counter() - began


def run(task: dict[str, Any]) -> dict[str, Any]:
    data = np.load(task["data"])
    config = FACTORY.create_advanced_n2v_config(
        "benchmark",
        "array",
        "SYX",
        (task["patch"], task["patch"]),
        task["batch"],
        **({"num_steps": task["steps"], "num_epochs": 1} if "steps" in task else {}),
        model_params={"num_channels_init": task["channels"], "depth": task["depth"]},
        seed=1,
    )
    watch = Watch(task, data)
    with tempfile.TemporaryDirectory() as folder:
        model = CAREAMIST.CAREamist(
            config, work_dir=folder, callbacks=[watch], enable_progress_bar=False
        )
        network = model.model.model
        watch.started = time.perf_counter()
        model.train(train_data=data["training"])
        if task.get("check"):
            watch.scores[-1]["predict_psnr_db"] = by_predict(model, watch)
    patches = torch.zeros(task["batch"], 1, task["patch"], task["patch"])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(patches)
    windows = watch.windows[WARM_UP_WINDOWS:]
    return {
        "version": importlib.import_module("careamics").__version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in network.parameters() if p.requires_grad),
        "forward_gflop_per_step": counter.get_total_flops() / 1e9,
        "steps": watch.steps,
        "seconds": watch.seconds,
        "steps_per_second": WINDOW / statistics.median(windows) if windows else None,
        "scores": watch.scores,
    }


def by_predict(model: Any, watch: Watch) -> float:
    """Return the PSNR of what its own `predict` gives, in case the watch scored it wrongly."""
    estimates, _ = model.predict(watch.noisy.astype(np.float32), batch_size=1)
    estimates = np.concatenate(
        [np.asarray(one).reshape(-1, *watch.truth.shape[1:]) for one in estimates]
    )
    errors = ((estimates - watch.truth) ** 2).mean(axis=(1, 2))
    return float(np.mean(10 * np.log10(np.ptp(watch.truth, axis=(1, 2)) ** 2 / errors)))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with contextlib.redirect_stdout(sys.stderr):
        result = run(json.loads(sys.argv[1]))
    print(json.dumps(result))
