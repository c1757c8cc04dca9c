"""How a model bundle comes to be: blind-spot training, the posterior, export, retraining."""
