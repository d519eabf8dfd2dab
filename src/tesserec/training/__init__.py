"""The one training loop: planning, precision, checkpoints, resume."""
