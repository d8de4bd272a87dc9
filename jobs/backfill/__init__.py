"""Rebuilding dates in a lake of their own, beside the live one, until they are compared and promoted."""
