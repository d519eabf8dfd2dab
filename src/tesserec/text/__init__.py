"""From item texts to item embeddings."""
