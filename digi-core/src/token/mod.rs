//! Id encryption.
