"""The ledger and the speed of plans on a real GPU: pack here, build and measure there, see __main__.py."""
