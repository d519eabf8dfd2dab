"""Pure functions: residual quantisation, the constraint index, beam search, losses, metrics."""
