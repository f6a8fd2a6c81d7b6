"""What is asked of a model: prompt, template, output format, settings, personas."""
