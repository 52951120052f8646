//! What a store remembers of the rooms it writes to.
