"""The umbel command itself: settings, messages, start and end."""
