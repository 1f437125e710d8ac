"""Tests in a real browser: JupyterLab with the widgets in it, and exported pages opened from disk."""
