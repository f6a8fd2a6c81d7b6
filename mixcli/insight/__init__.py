"""What mixcli knows about plans and machines beyond running them: tuning, the doctor, models that are not here yet."""
