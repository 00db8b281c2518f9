"""``python -m benchmarks.hostile``."""

from benchmarks.hostile.trials import main

if __name__ == "__main__":
    main()
