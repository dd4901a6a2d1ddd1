"""What the server tells about itself: log events. Imports nothing above it."""
