"""Timings of mnf_lite beside other libraries: ratios of medians, taken in one process, in turns."""
