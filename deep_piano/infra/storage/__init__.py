"""Folders that lie here or on S3, and files that appear whole or not at all."""
