"""The gate: a policy of limits held against a finished run. One result is the text, JSON, JUnit XML and exit code."""
