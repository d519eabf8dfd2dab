"""From raw logs to a prepared data set and its splits."""
