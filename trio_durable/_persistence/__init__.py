"""The path between turns and the storage's threads: group commit and batched loads."""
