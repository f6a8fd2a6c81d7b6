"""One file per command, in three steps: parse, call, print."""
