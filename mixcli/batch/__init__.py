"""Batches: read records, send them as concurrent requests, write the results in order, resume after a crash."""
