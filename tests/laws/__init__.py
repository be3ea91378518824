"""The laws of the engine as plain functions that raise AssertionError.

The property tests call them on random networks; ``test_laws_planted_bugs.py`` calls them on an
engine with a bug planted in it, and demands that they fail.
"""
