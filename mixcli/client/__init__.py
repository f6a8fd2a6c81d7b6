"""The parent side: start, find and stop hosts, and talk with them or with other servers."""
