"""Estimates on disk: the files of a results folder."""
