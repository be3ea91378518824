"""The command ``nembp``; installed as the package ``nembp_cli``."""
