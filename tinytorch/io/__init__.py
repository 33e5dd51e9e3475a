"""Files on disk: checkpoints, run folders, pictures and plots. Everything is written atomically."""
