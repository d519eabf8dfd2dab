"""Language models that read and write semantic IDs: vocabulary, prompts, tasks, loss and decoding."""
