"""Neural building blocks that several recommenders share."""
