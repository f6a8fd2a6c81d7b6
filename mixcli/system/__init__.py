"""This machine and its operating system: console, files, locks, child processes, hardware."""
