"""What may be deleted from a lake: past its keeping time, and reachable from nothing live."""
