"""Check whether the cameras of a posed image set are right: faults, their evidence and the fixes."""
