"""The engine: networks trained in both directions over the same weights."""
