"""What the camera does to light: photon transfer, noise models and the checks behind them."""
