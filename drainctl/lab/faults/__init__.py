"""Faults, injected into a running lab by hand (`drainctl lab break`) and by the tests."""
