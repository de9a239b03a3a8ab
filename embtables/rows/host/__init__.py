"""The native row store."""
