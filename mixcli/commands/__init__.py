"""One file a command, three steps long: parse, call, print."""
