"""Tools that a model may call from the terminal: functions of a Python file, MCP servers, definitions in JSON."""
