"""The review console: where people see suspects and say what they are."""
