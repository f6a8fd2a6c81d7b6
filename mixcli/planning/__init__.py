"""Knowledge about plans and machines: tuning, the doctor, models that are not installed."""
