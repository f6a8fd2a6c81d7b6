"""`python -m mixcli` is `mixcli`."""

from mixcli.cli import main

main()
