"""From item embeddings to semantic IDs, one file per method."""
