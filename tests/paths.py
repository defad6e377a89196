"""Folders that tests look into."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"  # ratings that may not be redistributed; tests skip without them
