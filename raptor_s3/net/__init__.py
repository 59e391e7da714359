"""Sockets, clocks and threads around the sans-IO rooms."""
