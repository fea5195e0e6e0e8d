"""The embedded demonstration: made-up news."""
