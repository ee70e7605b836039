"""Group commit and batched loads: the pipeline between turns and the storage's threads."""
