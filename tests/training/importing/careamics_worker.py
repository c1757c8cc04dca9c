"""CAREamics in a process and an environment of its own, for `test_from_careamics.py`.

    python careamics_worker.py train FOLDER     checkpoints, exports, predictions
    python careamics_worker.py noise FOLDER     likelihoods by its noise model

Imports nothing of quietscope.
"""

from __future__ import annotations

import importlib
import logging
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

NETWORK = {"num_channels_init": 8, "depth": 2}


def train(folder: Path) -> None:
    careamist = importlib.import_module("careamics.careamist")
    factory = importlib.import_module("careamics.config.factories.n2v_factory")
    y, x = np.mgrid[:96, :96]
    light = 100 + 60 * np.exp(-((y % 24 - 12) ** 2 + (x % 32 - 16) ** 2) / 40)
    frames = np.random.default_rng(0).poisson(light, (4, 96, 96)).astype(np.float32)
    for name in ("n2v", "n2v2"):
        config = factory.create_advanced_n2v_config(
            name,
            "array",
            "SYX",
            (32, 32),
            4,
            num_steps=20,
            num_epochs=1,
            model_params=NETWORK,
            use_n2v2=name == "n2v2",
            seed=1,
        )
        model = careamist.CAREamist(config, work_dir=folder / name, enable_progress_bar=False)
        model.train(train_data=frames)
        found, _ = model.predict(frames[:2], batch_size=1)
        predicted = np.concatenate([np.asarray(one).reshape(-1, 96, 96) for one in found])
        np.savez(folder / f"{name}.npz", frames=frames[:2], predicted=predicted)
        [checkpoint] = (folder / name).rglob("*_last.ckpt")
        shutil.copy(checkpoint, folder / f"{name}.ckpt")
        model.export_to_bmz(
            path_to_archive=folder / f"{name}.zip",
            friendly_model_name=f"{name} of a test",
            input_array=frames[:1],
            authors=[{"name": "A. Lab"}],
            general_description="A test.",
            data_description="Simulated.",
        )


def noise(folder: Path) -> None:
    models = importlib.import_module("careamics.models.lvae.noise_models")
    config = importlib.import_module("careamics.config.noise_model.noise_model_config")
    signals = np.linspace(200, 3000, 60, dtype=np.float32)
    observations = signals + np.random.default_rng(0).normal(size=60) * np.sqrt(signals)
    torch.manual_seed(0)
    theirs = models.GaussianMixtureNoiseModel(
        config.GaussianMixtureNMConfig(
            n_gaussian=2, n_coeff=2, min_signal=100.0, max_signal=4000.0, min_sigma=50.0
        )
    )
    np.savez(
        folder / "theirs.npz",
        trained_weight=theirs.weight.detach().numpy(),
        min_signal=np.atleast_1d(theirs.min_signal.numpy()),
        max_signal=np.atleast_1d(theirs.max_signal.numpy()),
        min_sigma=theirs.min_sigma.numpy(),
    )
    ours = models.GaussianMixtureNoiseModel(
        config.GaussianMixtureNMConfig(path=folder / "ours.npz")
    )
    given = [torch.from_numpy(array.astype(np.float32)) for array in (observations, signals)]
    np.savez(
        folder / "likelihoods.npz",
        observations=observations,
        signals=signals,
        ours=ours.likelihood(*given).detach().numpy(),
        theirs=theirs.likelihood(*given).detach().numpy(),
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    {"train": train, "noise": noise}[sys.argv[1]](Path(sys.argv[2]))
