"""Full ranking, metrics, reports with a protocol card, and the tokenizer tear-sheet."""
