"""CAREamics' `predict` in a process and an environment of its own.

For `inference_against_careamics.py`. Imports nothing of quietscope, so that CAREamics may bring
the versions it wants. Trains its default network for two steps, then times `predict`.

    python inference_careamics_worker.py FRAMES.npy ROUNDS

Prints one line of JSON at the end.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import tempfile
import time
import warnings
from typing import Any

import numpy as np
import torch


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    frames, rounds = np.load(sys.argv[1]), int(sys.argv[2])
    careamist: Any = importlib.import_module("careamics.careamist")
    factory: Any = importlib.import_module("careamics.config.factories.n2v_factory")
    config = factory.create_n2v_config(
        "speed", "array", "SYX", (64, 64), 4, num_epochs=1, num_steps=2
    )
    seconds = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        model = careamist.CAREamist(config, work_dir=folder, enable_progress_bar=False)
        model.train(train_data=frames.astype(np.float32))
        frame = frames[:1].astype(np.float32)
        for _ in range(1 + rounds):
            began = time.perf_counter()
            model.predict(frame, axes="SYX", data_type="array", batch_size=1)
            seconds.append(time.perf_counter() - began)
    version = importlib.import_module("careamics").__version__
    found = {"version": version, "threads": torch.get_num_threads(), "seconds": seconds[1:]}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
