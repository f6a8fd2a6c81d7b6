"""Thousands of records: read, asked many at a time, written in order, resumed after a crash."""
