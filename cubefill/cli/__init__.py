"""The command `cubefill`.

Every command is one call of a public function. Start with `main.py`.
"""
