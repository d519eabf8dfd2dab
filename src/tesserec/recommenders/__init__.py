"""From histories to recommendations, one file per method."""
