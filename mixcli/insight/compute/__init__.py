"""The child process that computes for mixcli/insight: it loads one model, reads texts with it and sums up what it sees."""
