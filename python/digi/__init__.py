"""Digi: a chat engine in Rust. Messages are stored before anybody sees them, in one order for everybody."""
